package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"wattle"
)

// failures are the verbs that fail.
var failures = map[string]func(call) error{
	"reject": func(c call) error {
		reason, err := c.Text()
		if err != nil {
			return err
		}
		return wattle.Reject("%s", reason)
	},
	"retry": func(c call) error {
		var of struct {
			Attempts uint32  `json:"attempts"`
			AfterMs  *uint64 `json:"after_ms"`
		}
		if err := c.JSON(&of); err != nil {
			return err
		}
		switch {
		case c.Attempt >= of.Attempts:
			return c.text(strconv.FormatUint(uint64(c.Attempt), 10))
		case of.AfterMs != nil:
			return wattle.RetryAfter(time.Duration(*of.AfterMs)*time.Millisecond, "not yet")
		default:
			return wattle.Retry("not yet")
		}
	},
	"panic": func(c call) error { return outer(string(c.Data)) },
	"exit":  func(call) error { os.Exit(3); return nil },
	"loop": func(call) error {
		for turns := 0; ; turns++ {
			kept = nil
		}
	},
	"grow": func(call) error {
		for {
			kept = append(kept, make([]byte, 1<<20))
		}
	},
	"recurse": func(c call) error { return c.text(strconv.Itoa(recurse(1))) },
}

// kept is what the verb grow allocates.
var kept [][]byte

func outer(text string) error { return inner(text) }

//go:noinline
func inner(text string) error { panic(text) }

func recurse(depth int) int {
	var frame [64]int
	for index := range frame {
		frame[index] = depth
	}
	return recurse(depth+1) + frame[depth%64]
}

// world are the verbs of the surroundings of a plugin.
var world = map[string]func(call) error{
	"log":   logged,
	"clock": clock,
	"sleep": sleep,
	"files": func(c call) error {
		content, err := os.ReadFile(string(c.Data))
		if err != nil {
			return c.text("refused")
		}
		return c.text(fmt.Sprintf("%d bytes", len(content)))
	},
	"random": func(c call) error {
		var bytes [8]byte
		rand.Read(bytes[:])
		return c.text(fmt.Sprintf("%x %x %x", wattle.Rand().Uint64(), wattle.Rand().Uint64(), bytes))
	},
	"hash": func(c call) error {
		keys := []string{}
		for key := range map[string]int{"z": 1, "b": 2, "1": 3, "a": 4, "0": 5} {
			keys = append(keys, key)
		}
		return c.text(strings.Join(keys, " "))
	},
}

func logged(c call) error {
	text := string(c.Data)
	for _, level := range []slog.Level{
		wattle.LevelTrace, slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError,
	} {
		slog.Log(context.Background(), level, text)
	}
	fmt.Println(text)
	fmt.Fprintln(os.Stderr, text)
	return c.text("ok")
}

func clock(c call) error {
	wall, appended := time.Now().UnixMilli(), c.Time.UnixMilli()
	if wall == appended {
		return c.text("same")
	}
	return c.text(fmt.Sprintf("%d %d", wall, appended))
}

func sleep(c call) error {
	ms, err := strconv.ParseUint(string(c.Data), 10, 32)
	if err != nil {
		return wattle.Reject("how long: %w", err)
	}
	long := time.Duration(ms) * time.Millisecond
	begin := time.Now()
	time.Sleep(long)
	moved := time.Since(begin)
	if moved >= long {
		return c.text("moved")
	}
	return c.text(strconv.FormatInt(moved.Milliseconds(), 10))
}
