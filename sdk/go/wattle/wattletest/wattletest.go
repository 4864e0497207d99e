//go:build !wasip1

// Package wattletest runs a plugin's handler in a test on the author's machine, with a bus in memory that has state,
// settings and attributes:
//
//	func TestAVisitorIsGreeted(t *testing.T) {
//		bus := wattletest.New(t)
//		bus.Setting("word", "Welcome")
//		result := bus.Handle(wattletest.JSON(`{"name": "Ada"}`))
//		if got := result.Text(t, 0); got != `{"text":"Welcome, Ada!"}` {
//			t.Error(got)
//		}
//	}
//
// The handler is that of the package under test, as given to [wattle.Handle]. The bus runs it in a sandbox, with
// limits and clocks of its own; wattle test tries it there.
package wattletest

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"wattle"
	"wattle/internal/bus"
)

// Bus is a bus in memory. A test has one at a time: the state and the configuration of a plugin are global.
type Bus struct {
	t      testing.TB
	memory *bus.Memory
	lines  []Line
}

// Line is a log line.
type Line struct{ Level, Text string }

// New makes a bus without state and configuration.
func New(t testing.TB) *Bus {
	t.Helper()
	if bus.Handle == nil {
		t.Fatal("the package under test calls wattle.Handle nowhere")
	}
	b := &Bus{t: t, memory: bus.NewMemory()}
	b.memory.Logged = func(level bus.Level, _, line string) {
		levels := [...]string{"trace", "debug", "info", "warn", "error", "critical"}
		b.lines = append(b.lines, Line{levels[level], line})
		t.Log(levels[level] + ": " + line)
	}
	bus.Test = b.memory
	return b
}

// Setting sets a setting of the configuration, as the text that a plugin is given.
func (b *Bus) Setting(name, text string) {
	b.memory.Settings[name] = text
	b.memory.Changed()
}

// Put writes into the bucket default, as an earlier event could have done.
func (b *Bus) Put(key, value string) { b.memory.Put("default", key, []byte(value)) }

// Value is the value under a key of the bucket default. It tells whether there is one.
func (b *Bus) Value(key string) (string, bool) {
	value, ok := b.memory.Value("default", key)
	return string(value), ok
}

// Lines are the log lines so far.
func (b *Bus) Lines() []Line { return b.lines }

// Event is an event, and its attributes. Fields that are left out are "", 0 or, for the attempt, 1.
type Event struct {
	wattle.Event
	Attributes map[string]string
}

// JSON is an event with this data, the key k, the type t and the content type application/json.
func JSON(data string) Event {
	return Event{Event: wattle.Event{Key: "k", Type: "t", ContentType: "application/json", Data: []byte(data)}}
}

// Result is what became of events.
type Result struct {
	// Outputs are those of all events, or those of the events before the failed one.
	Outputs []Output
	// Failure is nil where all were handled.
	Failure *Failure
}

// Output is an event that the handler sent.
type Output struct {
	// Event is the index of the answered event.
	Event int
	Port  wattle.Port
	// Key is nil where the handler gave none.
	Key               *string
	Type, ContentType string
	// Attributes are those beyond the fields.
	Attributes map[string]string
	Data       []byte
}

// Failure is about the first event that was not handled.
type Failure struct {
	Event  int
	Reason string
	// IsRetry: it is tried again, After a time or, where that is nil, when the topology says. Otherwise it is rejected.
	IsRetry bool
	After   *time.Duration
}

// Text is the data of one of the outputs; the test ends where there is none.
func (r Result) Text(t testing.TB, index int) string {
	t.Helper()
	if r.Failure != nil {
		t.Fatalf("event %d failed: %s", r.Failure.Event, r.Failure.Reason)
	}
	if index >= len(r.Outputs) {
		t.Fatalf("there are %d outputs, and no %d", len(r.Outputs), index)
	}
	return string(r.Outputs[index].Data)
}

// Handle handles events in one call. Their writes into the state stay, except for those of a failed event. A panic
// of the handler is one of the test.
func (b *Bus) Handle(events ...Event) Result {
	b.t.Helper()
	if bus.Test != b.memory {
		b.t.Fatal("another bus was made after this one: a test has one at a time")
	}
	call := &bus.Batch{}
	b.memory.Lines = nil
	for _, event := range events {
		call.Topic, call.Partition, call.ContentType = event.Topic, event.Partition, event.ContentType
		call.Events = append(call.Events, bus.Event{
			Key: event.Key, Type: event.Type, Time: nanoseconds(event.Time), Attempt: max(event.Attempt, 1), Data: event.Data,
		})
		var lines strings.Builder
		for _, name := range slices.Sorted(maps.Keys(event.Attributes)) {
			lines.WriteString(name + "=" + event.Attributes[name] + "\n")
		}
		b.memory.Lines = append(b.memory.Lines, lines.String())
	}
	sent, failure := bus.Handle(call)
	result := Result{}
	if failure != nil {
		b.memory.Undo()
		result.Failure = &Failure{Event: int(failure.Event), Reason: failure.Reason, IsRetry: failure.IsRetry}
		if failure.AfterMs != nil {
			result.Failure.After = new(time.Duration(*failure.AfterMs) * time.Millisecond)
		}
	}
	ports := bus.Ports()
	for _, output := range sent {
		result.Outputs = append(result.Outputs, Output{
			Event: int(output.Event), Port: wattle.Port(ports[output.Port]), Key: output.Key, Type: output.Type,
			ContentType: output.ContentType, Attributes: attributes(output.Attributes), Data: output.Data,
		})
	}
	return result
}

// nanoseconds is 0 for a time that was left out.
func nanoseconds(of time.Time) uint64 {
	if of.IsZero() {
		return 0
	}
	return uint64(of.UnixNano())
}

func attributes(lines string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(lines) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		all[name] = value
	}
	return all
}
