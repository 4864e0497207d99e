package wattle

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"wattle/internal/bus"
)

// LevelTrace is for the flow of control, below [slog.LevelDebug].
const LevelTrace = slog.Level(-8)

// NewLogHandler makes the handler of [log/slog] that writes log lines of the bus, which carry the current event. It
// is the default one in a plugin, so that slog.Info and log.Print work as they are.
func NewLogHandler() slog.Handler {
	buffer := new(bytes.Buffer)
	text := slog.NewTextHandler(buffer, &slog.HandlerOptions{Level: LevelTrace})
	return &logHandler{text, buffer, new(sync.Mutex)}
}

type logHandler struct {
	text   slog.Handler
	buffer *bytes.Buffer
	lock   *sync.Mutex
}

func (*logHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h *logHandler) Handle(ctx context.Context, record slog.Record) error {
	// The bus has a time, a level and an event of its own for each line.
	const before = `msg=""`
	bare := slog.NewRecord(time.Time{}, record.Level, "", 0)
	record.Attrs(func(attribute slog.Attr) bool {
		bare.AddAttrs(attribute)
		return true
	})
	h.lock.Lock()
	defer h.lock.Unlock()
	h.buffer.Reset()
	if err := h.text.Handle(ctx, bare); err != nil {
		return err
	}
	_, attributes, _ := strings.Cut(strings.TrimSuffix(h.buffer.String(), "\n"), before)
	bus.Log(level(record.Level), "", record.Message+attributes)
	return nil
}

func (h *logHandler) WithAttrs(attributes []slog.Attr) slog.Handler {
	return &logHandler{h.text.WithAttrs(attributes), h.buffer, h.lock}
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	return &logHandler{h.text.WithGroup(name), h.buffer, h.lock}
}

func level(of slog.Level) bus.Level {
	switch {
	case of < slog.LevelDebug:
		return bus.Trace
	case of < slog.LevelInfo:
		return bus.Debug
	case of < slog.LevelWarn:
		return bus.Info
	case of < slog.LevelError:
		return bus.Warn
	default:
		return bus.Error
	}
}
