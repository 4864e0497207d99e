package wattle

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"wattle/internal/bus"
	"wattle/internal/strict"
)

// Event is what a handler is given.
type Event struct {
	// Topic is where it comes from.
	Topic string
	// Partition is that of the topic.
	Partition uint32
	// ContentType is that of the data; "" when the producer gave none.
	ContentType string
	// Key is the ordering key.
	Key string
	// Type is the CloudEvents type.
	Type string
	// Time is when the event was appended to its topic. All clocks start here.
	Time time.Time
	// Attempt is which attempt at the event this is, from 1.
	Attempt uint32
	// Data is the payload, as it was published.
	Data []byte
}

// JSON reads the data into what a pointer points to, by the rules of encoding/json/v2, and strictly: a field of a
// struct has to be there and not null, unless it is a pointer or has the option omitzero or omitempty in its tag.
// Members that the struct does not have are ignored, names are case-sensitive, and of names that occur twice the last
// one counts, as for the bus.
//
// The error rejects the event, and names the path of the field that does not fit, such as items[3].qty.
func (e *Event) JSON(into any) error {
	if err := strict.Unmarshal(e.Data, into); err != nil {
		return Reject("the data is not what this plugin reads: %w", err)
	}
	return nil
}

// Text is the data as text. The error rejects the event, because it is not UTF-8.
func (e *Event) Text() (string, error) {
	if utf8.Valid(e.Data) {
		return string(e.Data), nil
	}
	valid := 0
	for r, size := utf8.DecodeRune(e.Data); r != utf8.RuneError || size != 1; r, size = utf8.DecodeRune(e.Data[valid:]) {
		valid += size
	}
	return "", Reject("the data is not UTF-8: byte %d begins no character", valid)
}

// Attribute is one of the CloudEvents attributes of the current event: id, source, subject, time or an extension.
func (e *Event) Attribute(name string) (string, bool) {
	for line := range strings.Lines(bus.Attributes()) {
		if key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok && key == name {
			return value, true
		}
	}
	return "", false
}

// Attributes are all CloudEvents attributes of the current event beyond the fields of this struct.
func (e *Event) Attributes() map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(bus.Attributes()) {
		if key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			all[key] = value
		}
	}
	return all
}

// String names the event, for log lines.
func (e *Event) String() string {
	return fmt.Sprintf("event of %s/%d with key %q", e.Topic, e.Partition, e.Key)
}
