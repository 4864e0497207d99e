package wattle

import (
	"encoding/json/v2"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"wattle/internal/bus"
)

// Port is the name of one of the plugin's outputs. The topology connects it to a topic.
type Port string

// Output is an event for a port. Its id, source and time are given by the bus.
type Output struct {
	// Port is where it goes.
	Port Port
	// Key is the ordering key; nil: that of the event that it answers. A new key starts a new order.
	Key *string
	// Type is the CloudEvents type; "": the name of the port.
	Type string
	// ContentType is that of the data; "": that of the event that it answers.
	ContentType string
	// Attributes are further CloudEvents attributes, in this order: subject, dataschema, or extensions, whose names are
	// lower-case letters and digits. The bus rejects the event when one is none of these, or has control characters.
	Attributes []NamedValue
	// Data is the payload.
	Data []byte
}

// NamedValue is an attribute.
type NamedValue struct{ Name, Value string }

// Option sets something of an [Output].
type Option func(*Output)

// Type sets the CloudEvents type of an output.
func Type(of string) Option { return func(o *Output) { o.Type = of } }

// Key gives an output another ordering key than that of the event that it answers.
func Key(key string) Option { return func(o *Output) { o.Key = &key } }

// ContentType sets the content type of an output's data.
func ContentType(of string) Option { return func(o *Output) { o.ContentType = of } }

// Attribute adds a CloudEvents attribute to an output.
func Attribute(name, value string) Option {
	return func(o *Output) { o.Attributes = append(o.Attributes, NamedValue{name, value}) }
}

// Outputs are what a handler answers an event with: any number of outputs, stored in the order in which they were
// sent. Those of an event that fails are dropped.
type Outputs struct {
	event uint32
	sent  []bus.Output
}

// Send sends an event. It panics where the plugin has no such port, and where a text of the output is not UTF-8.
func (o *Outputs) Send(output Output) {
	for _, text := range []*string{&output.Type, &output.ContentType, output.Key} {
		if text != nil && !utf8.ValidString(*text) {
			panic(fmt.Sprintf("what is sent to %q has a text that is not UTF-8", string(output.Port)))
		}
	}
	o.sent = append(o.sent, bus.Output{
		Event:       o.event,
		Port:        number(output.Port),
		Key:         output.Key,
		Type:        output.Type,
		ContentType: output.ContentType,
		Attributes:  lines(output.Attributes),
		Data:        output.Data,
	})
}

// Bytes sends an event with these bytes, and the content type of the event that it answers.
func (o *Outputs) Bytes(port Port, data []byte, options ...Option) {
	output := Output{Port: port, Data: data}
	for _, option := range options {
		option(&output)
	}
	o.Send(output)
}

// JSON sends an event with this value as JSON, by the rules of encoding/json/v2, with maps in the order of their
// keys. The error rejects the event, because the value cannot be JSON.
func (o *Outputs) JSON(port Port, value any, options ...Option) error {
	data, err := json.Marshal(value, json.Deterministic(true))
	if err != nil {
		return Reject("the output cannot be written as JSON: %w", err)
	}
	o.Bytes(port, data, slices.Insert(options, 0, ContentType("application/json"))...)
	return nil
}

// numbers are those of the ports that the topology connects.
var numbers map[Port]uint32

func number(port Port) uint32 {
	if numbers == nil {
		connected := bus.Ports()
		numbers = make(map[Port]uint32, len(connected))
		for index, name := range connected {
			numbers[Port(name)] = uint32(index)
		}
	}
	index, ok := numbers[port]
	if !ok {
		panic(fmt.Sprintf("the plugin has no port %q", string(port)))
	}
	return index
}

// A line end would begin a further attribute, which could be anything, such as delay. Instead it becomes a zero byte,
// which is what the bus refuses, and names.
var (
	inName  = strings.NewReplacer("\n", "\x00", "\r", "\x00", "=", "\x00")
	inValue = strings.NewReplacer("\n", "\x00", "\r", "\x00")
)

func lines(attributes []NamedValue) string {
	var text strings.Builder
	for _, attribute := range attributes {
		text.WriteString(inName.Replace(attribute.Name) + "=" + inValue.Replace(attribute.Value) + "\n")
	}
	return strings.ToValidUTF8(text.String(), "?")
}
