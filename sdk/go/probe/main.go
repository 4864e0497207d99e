// The conformance probe in Go: sdk/probe/README.md says what each verb does. The type of an event is the verb.
package main

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"wattle"
)

const (
	out   wattle.Port = "out"
	other wattle.Port = "other"
)

const stateVersion wattle.StateVersion = 3

// What the probe shows of its configuration.
type settings struct {
	// A text.
	Word string `default:"hello"`
	// A whole number.
	Times uint32 `default:"3"`
	// A number.
	Ratio float64 `default:"0.5"`
	// A switch.
	Loud bool `default:"false"`
	// A text that may be missing.
	End *string
}

type shape struct {
	Text     string  `json:"text"`
	Integer  int64   `json:"integer"`
	Unsigned uint64  `json:"unsigned"`
	Real     float64 `json:"real"`
	Flag     bool    `json:"flag"`
	List     []int64 `json:"list"`
	Nested   struct {
		Name string `json:"name"`
	} `json:"nested"`
	Maybe *string `json:"maybe"`
}

type message struct {
	Port        wattle.Port `json:"port"`
	Data        string      `json:"data"`
	Key         *string     `json:"key"`
	Type        string      `json:"type,omitzero"`
	ContentType string      `json:"content_type,omitzero"`
	Subject     *string     `json:"subject"`
}

func init() { wattle.Handle(handle, out, other) }

func main() {}

// verbs are those of this probe, by their names.
var verbs = map[string]func(call) error{
	"echo":       func(c call) error { c.out.Bytes(out, c.Data, c.kind()); return nil },
	"length":     length,
	"json":       echoJSON,
	"send":       send,
	"attribute":  attribute,
	"many":       many,
	"nothing":    func(call) error { return nil },
	"event":      envelope,
	"attributes": attributes,
	"config":     config,
	"setting":    setting,
}

// call is an event and its outputs.
type call struct {
	*wattle.Event
	out *wattle.Outputs
}

func handle(event *wattle.Event, out *wattle.Outputs) error {
	name := strings.TrimPrefix(event.Type, "probe.")
	for _, known := range []map[string]func(call) error{verbs, keys, failures, world} {
		if verb, ok := known[name]; ok {
			return verb(call{event, out})
		}
	}
	return wattle.Reject("no verb %s", name)
}

func (c call) kind() wattle.Option { return wattle.Type(c.Type) }

func (c call) text(text string) error {
	c.out.Bytes(out, []byte(text), c.kind(), wattle.ContentType("text/plain"))
	return nil
}

func (c call) json(value any) error { return c.out.JSON(out, value, c.kind()) }

func length(c call) error {
	text, err := c.Text()
	if err != nil {
		return err
	}
	return c.text(strconv.Itoa(utf8.RuneCountInString(text)))
}

func echoJSON(c call) error {
	var value shape
	if err := c.JSON(&value); err != nil {
		return err
	}
	return c.json(value)
}

func send(c call) error {
	var m message
	if err := c.JSON(&m); err != nil {
		return err
	}
	output := wattle.Output{Port: m.Port, Key: m.Key, Type: m.Type, ContentType: m.ContentType, Data: []byte(m.Data)}
	if m.Subject != nil {
		output.Attributes = []wattle.NamedValue{{Name: "subject", Value: *m.Subject}}
	}
	c.out.Send(output)
	return nil
}

func attribute(c call) error {
	var of struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	if err := c.JSON(&of); err != nil {
		return err
	}
	c.out.Bytes(out, nil, c.kind(), wattle.Attribute(of.Name, of.Value))
	return nil
}

func many(c call) error {
	var of struct {
		Count int `json:"count"`
	}
	if err := c.JSON(&of); err != nil {
		return err
	}
	for number := range of.Count {
		port := []wattle.Port{out, other}[number%2]
		c.out.Bytes(port, []byte(strconv.Itoa(number)), c.kind(), wattle.ContentType("text/plain"))
	}
	return nil
}

func envelope(c call) error {
	return c.json(struct {
		Topic       string `json:"topic"`
		Partition   uint32 `json:"partition"`
		Key         string `json:"key"`
		Type        string `json:"type"`
		ContentType string `json:"content_type"`
		TimeNs      string `json:"time_ns"`
		Attempt     uint32 `json:"attempt"`
	}{c.Topic, c.Partition, c.Key, c.Type, c.ContentType, strconv.FormatInt(c.Time.UnixNano(), 10), c.Attempt})
}

func attributes(c call) error {
	all := c.Attributes()
	lines := []string{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		lines = append(lines, name+"="+all[name])
	}
	return c.text(strings.Join(lines, "\n"))
}

func config(c call) error {
	of, err := wattle.Config[settings]()
	if err != nil {
		return err
	}
	return c.json(struct {
		Word  string  `json:"word"`
		Times uint32  `json:"times"`
		Ratio float64 `json:"ratio"`
		Loud  bool    `json:"loud"`
		End   *string `json:"end"`
	}(*of))
}

func setting(c call) error {
	value, ok := wattle.Setting(string(c.Data))
	if !ok {
		value = "none"
	}
	return c.text(value)
}
