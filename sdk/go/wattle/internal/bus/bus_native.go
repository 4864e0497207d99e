//go:build !wasip1

package bus

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Limits of the contract.
const (
	keyBytesMax    = 1024
	valueBytesMax  = 1 << 20
	bucketBytesMax = 64
	pageKeys       = 1000
)

type place struct{ bucket, key string }

// Memory is a bus in memory: what a test sets, and what the plugin wrote.
type Memory struct {
	Settings map[string]string
	// Lines are the attributes of each event of the call.
	Lines []string
	// Connected are the ports, for plugins that declare none.
	Connected []string
	// Logged gets each log line.
	Logged func(level Level, context, line string)

	state, savepoint map[place][]byte
	current          int
}

// Test is the bus of the current test.
var Test = NewMemory()

var isChanged bool

// NewMemory makes a bus without state and configuration.
func NewMemory() *Memory {
	isChanged = true
	return &Memory{Settings: map[string]string{}, state: map[place][]byte{}}
}

// Undo takes back what the current event wrote.
func (m *Memory) Undo() {
	if m.savepoint != nil {
		m.state = m.savepoint
	}
}

// Value is the value under a key of a bucket.
func (m *Memory) Value(bucket, key string) ([]byte, bool) {
	value, ok := m.state[place{bucket, key}]
	return value, ok
}

// Put writes into a bucket.
func (m *Memory) Put(bucket, key string, value []byte) { m.state[place{bucket, key}] = value }

// Changed says that the settings are others.
func (m *Memory) Changed() { isChanged = true }

// ConfigChanged tells whether settings have to be read again.
func ConfigChanged() bool {
	was := isChanged
	isChanged = false
	return was
}

// Current begins an event.
func Current(index uint32) {
	Test.current = int(index)
	Test.savepoint = maps.Clone(Test.state)
}

// Attributes are those of the current event.
func Attributes() string {
	if Test.current < len(Test.Lines) {
		return Test.Lines[Test.current]
	}
	return ""
}

// Ports are the names of the ports that the topology connects.
func Ports() []string {
	if declared := Describe(); len(declared) > 0 {
		return declared
	}
	return Test.Connected
}

// Config is a setting of the topology.
func Config(name string) (string, bool) {
	text, ok := Test.Settings[name]
	return text, ok
}

// Log writes a log line.
func Log(level Level, context, line string) {
	if Test.Logged != nil {
		Test.Logged(level, context, line)
		return
	}
	fmt.Fprintln(os.Stderr, line)
}

// Trap ends the plugin.
func Trap(message any) { panic(message) }

// Bucket is a part of the state.
type Bucket struct{ name string }

// Open opens a bucket.
func Open(name string) (*Bucket, error) {
	if len(name) > bucketBytesMax {
		return nil, errors.New("the name of a bucket has at most 64 bytes")
	}
	return &Bucket{cmp.Or(name, "default")}, nil
}

// Close is for a bucket that is not needed any more.
func (b *Bucket) Close() {}

func checked(key string) error {
	switch {
	case key == "":
		return errors.New("the key is empty")
	case len(key) > keyBytesMax:
		return errors.New("a key has at most 1024 bytes")
	default:
		return nil
	}
}

// Get gives nil where there is nothing.
func (b *Bucket) Get(key string) ([]byte, error) {
	value, ok := Test.state[place{b.name, key}]
	if ok {
		value = append([]byte{}, value...)
	}
	return value, checked(key)
}

// Set puts a value under a key.
func (b *Bucket) Set(key string, value []byte) error {
	if err := checked(key); err != nil {
		return err
	}
	if len(value) > valueBytesMax {
		return errors.New("a value has at most 1048576 bytes")
	}
	Test.state[place{b.name, key}] = append([]byte{}, value...)
	return nil
}

// Delete removes a key.
func (b *Bucket) Delete(key string) error {
	delete(Test.state, place{b.name, key})
	return checked(key)
}

// Exists tells whether there is a value.
func (b *Bucket) Exists(key string) (bool, error) {
	_, ok := Test.state[place{b.name, key}]
	return ok, checked(key)
}

// Increment adds to a number.
func (b *Bucket) Increment(key string, delta int64) (int64, error) {
	before := int64(0)
	if value, ok := Test.state[place{b.name, key}]; ok {
		var err error
		if before, err = strconv.ParseInt(string(value), 10, 64); err != nil {
			return 0, errors.New("what is there is no number")
		}
	}
	if delta > 0 && before > math.MaxInt64-delta || delta < 0 && before < math.MinInt64-delta {
		return 0, errors.New("the sum does not fit into 64 bits")
	}
	return before + delta, b.Set(key, strconv.AppendInt(nil, before+delta, 10))
}

// Keys gives the keys after a cursor, and the next cursor; nil is before the first one and after the last page.
func (b *Bucket) Keys(cursor *string) ([]string, *string, error) {
	var keys []string
	for at := range Test.state {
		if at.bucket == b.name && (cursor == nil || strings.Compare(at.key, *cursor) > 0) {
			keys = append(keys, at.key)
		}
	}
	slices.Sort(keys)
	if len(keys) <= pageKeys {
		return keys, nil, nil
	}
	return keys[:pageKeys], &keys[pageKeys-1], nil
}
