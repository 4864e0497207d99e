// Package bus is what a plugin and the bus say to each other: over the contract where the plugin runs
// (bus_wasip1.go), and in memory where it is tested (bus_native.go). Both have the same functions.
package bus

// Batch is the events of one call.
type Batch struct {
	Topic       string
	Partition   uint32
	ContentType string
	Events      []Event
}

// Event is one of them.
type Event struct {
	Key, Type string
	// Time is in nanoseconds since 1970.
	Time    uint64
	Attempt uint32
	Data    []byte
}

// Output is an event for a port.
type Output struct {
	// Event is the index of the answered event, Port that of a port.
	Event, Port uint32
	Key         *string
	Type        string
	ContentType string
	// Attributes are "name=value\n" lines.
	Attributes string
	Data       []byte
}

// Failure is about the first event that was not handled.
type Failure struct {
	Event   uint32
	IsRetry bool
	AfterMs *uint64
	Reason  string
}

// What a plugin provides; set before the first call.
var (
	Describe func() []string
	Handle   func(*Batch) ([]Output, *Failure)
)

// Level is how much a log line matters.
type Level uint8

// Levels as the contract numbers them.
const (
	Trace Level = iota
	Debug
	Info
	Warn
	Error
	Critical
)
