package wattle

import (
	crypto "crypto/rand"
	"encoding/binary"
	"math/rand/v2"
)

// random is the generator of the current event, once it was asked for.
var random *rand.Rand

// Rand is a generator of random numbers that is seeded for each event, so that the same event always gives the same
// numbers. The functions of math/rand are seeded once for each instance, and do not.
func Rand() *rand.Rand {
	if random == nil {
		var seed [16]byte
		// It never fails.
		crypto.Read(seed[:])
		random = rand.New(rand.NewPCG(binary.LittleEndian.Uint64(seed[:8]), binary.LittleEndian.Uint64(seed[8:])))
	}
	return random
}
