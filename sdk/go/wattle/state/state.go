// Package state is what a plugin keeps from one event to the next.
//
//	visits, err := state.Increment("visits/"+event.Key, 1)
//
// Each partition has a state of its own, so that events with the same key always meet the same state, and no other
// lane writes it. Writes of an event are committed together with its outputs; when the event fails, it is as if
// it had written nothing.
//
// Keys have 1 to 1,024 bytes, values at most 1 MiB; one event may write 4 MiB and 10,000 keys. Errors try the event
// again: trouble with state may pass.
package state

import (
	"encoding/json/v2"
	"errors"
	"iter"
	"unicode/utf8"

	"wattle"
	"wattle/internal/bus"
	"wattle/internal/strict"
)

// Get gives the value under a key; nil where there is none. An empty value is not nil.
func Get(key string) ([]byte, error) { return standard().Get(key) }

// Set puts a value under a key, whatever was there.
func Set(key string, value []byte) error { return standard().Set(key, value) }

// Delete removes a key, if it is there.
func Delete(key string) error { return standard().Delete(key) }

// Exists tells whether there is a value under a key.
func Exists(key string) (bool, error) { return standard().Exists(key) }

// Increment adds to the number under a key, which is 0 where there is none, and gives the sum. It is kept in decimal
// digits.
func Increment(key string, delta int64) (int64, error) { return standard().Increment(key, delta) }

// GetJSON reads the value under a key into what a pointer points to, as strictly as [wattle.Event.JSON]. It tells
// whether there is one. What does not fit tries the event again: another version of the plugin may read it.
func GetJSON(key string, into any) (bool, error) { return standard().GetJSON(key, into) }

// SetJSON puts a value under a key, as JSON. A value that cannot be JSON rejects the event.
func SetJSON(key string, value any) error { return standard().SetJSON(key, value) }

// Keys are all keys, in ascending order of their bytes. They are read 1,000 at once, as far as they are asked for;
// what the event wrote before the next 1,000 are read is among them.
func Keys() iter.Seq2[string, error] { return standard().Keys() }

// Bucket is keys and values of their own. The functions of this package are about the bucket default.
type Bucket struct{ name string }

// opened are the handles of buckets. They stay open for as long as the instance lives: a bucket is a name, and means
// the state of whatever event is current.
var opened = map[string]*bus.Bucket{}

// openedMax is how many stay open. Plugins have few, unless names are made of data.
const openedMax = 16

func standard() *Bucket { return &Bucket{} }

// Open opens a bucket with a name of up to 64 bytes.
func Open(name string) (*Bucket, error) {
	bucket := &Bucket{name}
	_, err := bucket.handle()
	return bucket, err
}

// at is the bucket for a key, which has to be a text.
func (b *Bucket) at(doing, key string) (*bus.Bucket, error) {
	if !utf8.ValidString(key) {
		return nil, trouble(doing, key, errors.New("the key is not UTF-8"))
	}
	return b.handle()
}

func (b *Bucket) handle() (*bus.Bucket, error) {
	if !utf8.ValidString(b.name) {
		return nil, trouble("opening", b.name, errors.New("the name is not UTF-8"))
	}
	if handle, ok := opened[b.name]; ok {
		return handle, nil
	}
	handle, err := bus.Open(b.name)
	if err != nil {
		return nil, trouble("opening", b.name, err)
	}
	if len(opened) == openedMax {
		for name, other := range opened {
			other.Close()
			delete(opened, name)
		}
	}
	opened[b.name] = handle
	return handle, nil
}

// Get is as the function [Get].
func (b *Bucket) Get(key string) ([]byte, error) {
	handle, err := b.at("reading", key)
	if err != nil {
		return nil, err
	}
	value, err := handle.Get(key)
	return value, trouble("reading", key, err)
}

// Set is as the function [Set].
func (b *Bucket) Set(key string, value []byte) error {
	handle, err := b.at("writing", key)
	if err != nil {
		return err
	}
	return trouble("writing", key, handle.Set(key, value))
}

// Delete is as the function [Delete].
func (b *Bucket) Delete(key string) error {
	handle, err := b.at("deleting", key)
	if err != nil {
		return err
	}
	return trouble("deleting", key, handle.Delete(key))
}

// Exists is as the function [Exists].
func (b *Bucket) Exists(key string) (bool, error) {
	handle, err := b.at("reading", key)
	if err != nil {
		return false, err
	}
	isThere, err := handle.Exists(key)
	return isThere, trouble("reading", key, err)
}

// Increment is as the function [Increment].
func (b *Bucket) Increment(key string, delta int64) (int64, error) {
	handle, err := b.at("incrementing", key)
	if err != nil {
		return 0, err
	}
	sum, err := handle.Increment(key, delta)
	return sum, trouble("incrementing", key, err)
}

// GetJSON is as the function [GetJSON].
func (b *Bucket) GetJSON(key string, into any) (bool, error) {
	value, err := b.Get(key)
	if value == nil || err != nil {
		return false, err
	}
	if err := strict.Unmarshal(value, into); err != nil {
		return false, wattle.Retry("state: what is under %q is not what this plugin reads: %w", shown(key), err)
	}
	return true, nil
}

// SetJSON is as the function [SetJSON].
func (b *Bucket) SetJSON(key string, value any) error {
	data, err := json.Marshal(value, json.Deterministic(true))
	if err != nil {
		return wattle.Reject("state: the value for %q cannot be JSON: %w", shown(key), err)
	}
	return b.Set(key, data)
}

// Keys is as the function [Keys].
func (b *Bucket) Keys() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		var cursor *string
		for {
			handle, err := b.handle()
			if err != nil {
				yield("", err)
				return
			}
			keys, next, err := handle.Keys(cursor)
			if err != nil {
				yield("", trouble("listing keys of", b.name, err))
				return
			}
			for _, key := range keys {
				if !yield(key, nil) {
					return
				}
			}
			if next == nil {
				return
			}
			cursor = next
		}
	}
}

func trouble(doing, what string, err error) error {
	if err == nil {
		return nil
	}
	return wattle.Retry("state: %s %q: %w", doing, shown(what), err)
}

// shown is the part of a key that messages show: the key itself may be too long.
func shown(key string) string {
	const runesMax = 64
	if runes := []rune(key); len(runes) > runesMax {
		return string(runes[:runesMax])
	}
	return key
}
