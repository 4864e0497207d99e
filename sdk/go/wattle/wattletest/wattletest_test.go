//go:build !wasip1

package wattletest_test

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"wattle"
	"wattle/state"
	"wattle/wattletest"
)

const (
	first  wattle.Port = "first"
	second wattle.Port = "second"
)

type settings struct {
	Word  string `default:"hello"`
	Times uint8  `default:"2"`
	End   *string
}

// A plugin whose verbs are types of events.
func init() { wattle.HandleBatch(batch, first, second) }

func batch(batch *wattle.Batch) error {
	if batch.Len() > 1 && batch.Peek(0).Type == "early" {
		return nil
	}
	for event, out := range batch.Events() {
		if err := handle(event, out); err != nil {
			return err
		}
	}
	return nil
}

func handle(event *wattle.Event, out *wattle.Outputs) error {
	switch event.Type {
	case "echo":
		out.Bytes(first, event.Data, wattle.Key("other"), wattle.Attribute("subject", "a\nb"), wattle.Type("x"))
	case "map":
		return out.JSON(second, map[string]any{"z": []int(nil), "a": "<&>", "m": uint64(18446744073709551615)})
	case "config":
		config, err := wattle.Config[settings]()
		if err != nil {
			return err
		}
		return out.JSON(first, []any{config.Word, config.Times, config.End})
	case "retry":
		return fmt.Errorf("wrapped: %w", wattle.RetryAfter(1500*time.Microsecond, "not %s", "yet"))
	case "reject":
		out.Bytes(first, nil)
		return errors.New("no")
	case "count":
		if _, err := state.Increment(event.Key, 3); err != nil {
			return err
		}
		var seen struct {
			Last string `json:"last"`
		}
		isThere, err := state.GetJSON("seen", &seen)
		if err != nil {
			return err
		}
		if err := state.SetJSON("seen", map[string]string{"last": event.Key}); err != nil {
			return err
		}
		return out.JSON(first, []any{isThere, seen.Last})
	case "keys":
		bucket, err := state.Open("of-its-own")
		if err != nil {
			return err
		}
		for number := range 2500 {
			if err := bucket.Set(fmt.Sprintf("%05d", number), nil); err != nil {
				return err
			}
		}
		keys := maps.Collect(bucket.Keys())
		return out.JSON(first, []any{len(keys), slices.Min(slices.Collect(maps.Keys(keys)))})
	case "bad-key":
		return state.Set("", nil)
	case "bytes":
		return state.Set(string(event.Data), nil)
	case "text":
		text, err := event.Text()
		out.Bytes(first, []byte(text))
		return err
	case "attributes":
		subject, isThere := event.Attribute("subject")
		return out.JSON(first, []any{subject, isThere, event.Attributes()})
	case "log":
		slog.New(wattle.NewLogHandler()).With("a", 1).WithGroup("g").Warn("hello", "msg", "b c")
	case "nowhere":
		out.Bytes("nowhere", nil)
	case "random":
		return out.JSON(first, wattle.Rand() == wattle.Rand())
	}
	return nil
}

func of(kind, data string) wattletest.Event {
	event := wattletest.JSON(data)
	event.Type = kind
	return event
}

func TestAnOutputHasWhatItsOptionsSay(t *testing.T) {
	bus := wattletest.New(t)
	output := bus.Handle(of("echo", "\x00\xff")).Outputs[0]
	if *output.Key != "other" || output.Port != first || output.Type != "x" || output.ContentType != "" {
		t.Errorf("%+v", output)
	}
	// The bus refuses the zero byte, and names the attribute.
	if subject := output.Attributes["subject"]; subject != "a\x00b" || len(output.Attributes) != 1 {
		t.Errorf("%q", output.Attributes)
	}
	if text := bus.Handle(of("map", "")).Text(t, 0); text != `{"a":"<&>","m":18446744073709551615,"z":[]}` {
		t.Error(text)
	}
}

func TestAConfigurationIsReadAsItsTypes(t *testing.T) {
	bus := wattletest.New(t)
	if text := bus.Handle(of("config", "")).Text(t, 0); text != `["hello",2,null]` {
		t.Error(text)
	}
	bus.Setting("times", "255")
	bus.Setting("end", "!")
	if text := bus.Handle(of("config", "")).Text(t, 0); text != `["hello",255,"!"]` {
		t.Error(text)
	}
	bus.Setting("times", "secret")
	failure := bus.Handle(of("config", "")).Failure
	if !failure.IsRetry || strings.Contains(failure.Reason, "secret") || !strings.Contains(failure.Reason, "`times`") {
		t.Errorf("%+v", failure)
	}
}

func TestErrorsRejectExceptForThoseThatRetry(t *testing.T) {
	bus := wattletest.New(t)
	failure := bus.Handle(of("retry", "")).Failure
	if !failure.IsRetry || *failure.After != time.Millisecond || failure.Reason != "wrapped: not yet" {
		t.Errorf("%+v", failure)
	}
	if failure := bus.Handle(of("reject", "")).Failure; failure.IsRetry || failure.Reason != "no" {
		t.Errorf("%+v", failure)
	}
	failure = bus.Handle(of("bad-key", "")).Failure
	if !failure.IsRetry || !strings.HasPrefix(failure.Reason, "state: ") {
		t.Errorf("%+v", failure)
	}
	if failure := bus.Handle(of("bytes", "a\xff")).Failure; !strings.HasSuffix(failure.Reason, "the key is not UTF-8") {
		t.Errorf("%+v", failure)
	}
	failure = bus.Handle(of("text", "aé\xff")).Failure
	if failure.Reason != "the data is not UTF-8: byte 3 begins no character" {
		t.Errorf("%+v", failure)
	}
}

func TestAnErrorTellsWhetherItRetriesAlsoWhereItIsWrapped(t *testing.T) {
	retry, reject := fmt.Errorf("wrapped: %w", wattle.Retry("later")), fmt.Errorf("wrapped: %w", wattle.Reject("never"))
	if !wattle.IsRetry(retry) || wattle.IsRetry(reject) || wattle.IsRetry(errors.New("never")) || wattle.IsRetry(nil) {
		t.Error(wattle.IsRetry(retry), wattle.IsRetry(reject))
	}
}

func TestABatchKeepsWhatCameBeforeAFailure(t *testing.T) {
	bus := wattletest.New(t)
	result := bus.Handle(of("count", ""), of("echo", ""), of("reject", ""), of("echo", ""))
	if len(result.Outputs) != 2 || result.Outputs[1].Event != 1 || result.Failure.Event != 2 {
		t.Errorf("%+v", result)
	}
	if value, _ := bus.Value("k"); value != "3" {
		t.Error(value)
	}
	if text := bus.Handle(of("count", "")).Text(t, 0); text != `[true,"k"]` {
		t.Error(text)
	}
	early := bus.Handle(of("early", ""), of("echo", "")).Failure
	if early == nil || early.Event != 0 || !strings.Contains(early.Reason, "returned before event 0 of 2") {
		t.Errorf("%+v", early)
	}
}

func TestStateIsReadAsStrictlyAsEvents(t *testing.T) {
	bus := wattletest.New(t)
	bus.Put("seen", `{}`)
	failure := bus.Handle(of("count", "")).Failure
	if !failure.IsRetry || !strings.HasSuffix(failure.Reason, "last is missing") {
		t.Errorf("%+v", failure)
	}
	if _, isThere := bus.Value("k"); isThere {
		t.Error("what a failed event wrote is there")
	}
	if text := bus.Handle(of("keys", "")).Text(t, 0); text != `[2500,"00000"]` {
		t.Error(text)
	}
}

func TestAttributesAndLogLinesAreThoseOfTheEvent(t *testing.T) {
	bus := wattletest.New(t)
	event := of("attributes", "")
	event.Attributes = map[string]string{"subject": "a=b", "source": "/x"}
	if text := bus.Handle(event).Text(t, 0); text != `["a=b",true,{"source":"/x","subject":"a=b"}]` {
		t.Error(text)
	}
	bus.Handle(of("log", ""))
	expected := wattletest.Line{Level: "warn", Text: `hello a=1 g.msg="b c"`}
	if lines := bus.Lines(); len(lines) != 1 || lines[0] != expected {
		t.Errorf("%q", lines)
	}
	if text := bus.Handle(of("random", "")).Text(t, 0); text != "true" {
		t.Error("an event has two generators")
	}
}

func TestAPortThatIsNotThePluginsIsAPanicWithTheAuthorsLine(t *testing.T) {
	bus := wattletest.New(t)
	defer func() {
		recover()
		lines := bus.Lines()
		if len(lines) != 1 || !strings.Contains(lines[0].Text, "wattletest_test.go:") ||
			!strings.HasSuffix(lines[0].Text, `: the plugin has no port "nowhere"`) {
			t.Errorf("%q", lines)
		}
	}()
	bus.Handle(of("nowhere", ""))
}
