package wattle

import (
	"errors"
	"fmt"
	"iter"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"wattle/internal/bus"
)

// Handle makes a plugin of a handler and its ports; it is to be called from an init function of package main, once.
// The bus refuses a topology that does not connect exactly these ports. Without ports the plugin sends to whatever
// the topology connects.
func Handle(handler func(event *Event, out *Outputs) error, ports ...Port) {
	HandleBatch(func(batch *Batch) error {
		for event, out := range batch.Events() {
			if err := handler(event, out); err != nil {
				return err
			}
		}
		return nil
	}, ports...)
}

// HandleBatch is as [Handle] for handlers that want to see the events of a call together:
//
//	func handle(batch *wattle.Batch) error {
//		// Look ahead with batch.Peek, then:
//		for event, out := range batch.Events() {
//			…
//		}
//		return nil
//	}
//
// An error is about the current event. Batches are cut as it suits the bus: an answer must not depend
// on which events come together.
func HandleBatch(handler func(batch *Batch) error, ports ...Port) {
	if bus.Handle != nil {
		panic("a plugin has one handler, and this is another one")
	}
	bus.Describe = func() []string {
		names := make([]string, len(ports))
		for index, port := range ports {
			names[index] = string(port)
		}
		return names
	}
	bus.Handle = func(given *bus.Batch) ([]bus.Output, *bus.Failure) {
		batch := &Batch{given: given}
		err := run(handler, batch)
		if err == nil && batch.next < len(given.Events) {
			err = fmt.Errorf("the handler returned before event %d of %d", batch.next, len(given.Events))
			batch.turn()
		}
		if err == nil {
			return batch.out.sent, nil
		}
		return batch.out.sent[:batch.before], failed(batch, err)
	}
}

// Batch is the events of one call, which have the topic, the partition and the content type in common.
type Batch struct {
	given *bus.Batch
	// next is the index after the current event.
	next int
	out  Outputs
	// before is how many outputs belong to events before the current one.
	before int
}

// Len is the number of events.
func (b *Batch) Len() int { return len(b.given.Events) }

// Peek gives an event by its index, without turning to it.
func (b *Batch) Peek(index int) *Event {
	event := &b.given.Events[index]
	return &Event{
		Topic:       b.given.Topic,
		Partition:   b.given.Partition,
		ContentType: b.given.ContentType,
		Key:         event.Key,
		Type:        event.Type,
		Time:        time.Unix(0, int64(event.Time)).UTC(),
		Attempt:     event.Attempt,
		Data:        event.Data,
	}
}

// Events turns to one event after the other: state, clocks, random bytes, log lines and outputs are about that one.
// All have to be turned to, until one fails.
func (b *Batch) Events() iter.Seq2[*Event, *Outputs] {
	return func(yield func(*Event, *Outputs) bool) {
		for b.next < len(b.given.Events) {
			event := b.Peek(b.next)
			b.turn()
			if !yield(event, &b.out) {
				return
			}
		}
	}
}

func (b *Batch) turn() {
	bus.Current(uint32(b.next))
	b.out.event = uint32(b.next)
	b.before = len(b.out.sent)
	random = nil
	b.next++
}

// failed is what the bus is told of an error at the current event.
func failed(b *Batch, err error) *bus.Failure {
	if b.next == 0 {
		// A call with several events begins on none.
		b.turn()
	}
	told := &bus.Failure{Event: b.out.event, Reason: err.Error()}
	var f failure
	if errors.As(err, &f) && f.isRetry {
		told.IsRetry = true
		if f.after != nil {
			ms := uint64(max(f.after.Milliseconds(), 0))
			told.AfterMs = &ms
		}
	}
	return told
}

// run calls a handler. A panic is logged in one line, with the author's file and line, which the bus repeats as the
// reason.
func run(handler func(*Batch) error, batch *Batch) error {
	defer func() {
		if message := recover(); message != nil {
			line := fmt.Sprintf("panicked at %s: %v", place(), message)
			bus.Log(bus.Critical, "panic", strings.ReplaceAll(line, "\n", " "))
			bus.Trap(message)
		}
	}()
	return handler(batch)
}

// place is the author's own line that panicked, or that called what did.
func place() string {
	own := func(string) bool { return false }
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Path != "" {
		own = func(function string) bool {
			rest, ok := strings.CutPrefix(function, info.Main.Path)
			return ok && rest != "" && (rest[0] == '/' || rest[0] == '.')
		}
	}
	var counters [64]uintptr
	frames := runtime.CallersFrames(counters[:runtime.Callers(3, counters[:])])
	first := ""
	for {
		frame, more := frames.Next()
		line := fmt.Sprintf("%s:%d", frame.File, frame.Line)
		if !isLibrary(frame.Function) && (strings.HasPrefix(frame.Function, "main.") || own(frame.Function)) {
			return line
		}
		if first == "" && !strings.HasPrefix(frame.Function, "runtime.") {
			first = line
		}
		if !more {
			return first
		}
	}
}

// isLibrary tells whether a function is one of the library's own.
func isLibrary(function string) bool {
	return strings.HasPrefix(function, "wattle.") || strings.HasPrefix(function, "wattle/state.") ||
		strings.HasPrefix(function, "wattle/internal/")
}
