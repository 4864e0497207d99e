package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"wattle"
	"wattle/state"
)

// keys are the verbs of the state.
var keys = map[string]func(call) error{
	"get": func(c call) error {
		value, err := state.Get(string(c.Data))
		if value == nil {
			value = []byte("none")
		}
		c.out.Bytes(out, value, c.kind(), wattle.ContentType("text/plain"))
		return err
	},
	"set": func(c call) error {
		var entry struct {
			Key   string `json:"key"`
			Value string `json:"value"`
		}
		if err := c.JSON(&entry); err != nil {
			return err
		}
		return c.done(state.Set(entry.Key, []byte(entry.Value)))
	},
	"set-large": func(c call) error {
		var large struct {
			Key  string `json:"key"`
			Size int    `json:"size"`
		}
		if err := c.JSON(&large); err != nil {
			return err
		}
		return c.done(state.Set(large.Key, bytes.Repeat([]byte("x"), large.Size)))
	},
	"delete": func(c call) error { return c.done(state.Delete(string(c.Data))) },
	"exists": func(c call) error {
		isThere, err := state.Exists(string(c.Data))
		if err != nil {
			return err
		}
		return c.text(strconv.FormatBool(isThere))
	},
	"increment": func(c call) error {
		var of struct {
			Key string `json:"key"`
			By  int64  `json:"by"`
		}
		if err := c.JSON(&of); err != nil {
			return err
		}
		sum, err := state.Increment(of.Key, of.By)
		if err != nil {
			return err
		}
		return c.text(strconv.FormatInt(sum, 10))
	},
	"fill": func(c call) error {
		var of struct {
			Count int `json:"count"`
		}
		if err := c.JSON(&of); err != nil {
			return err
		}
		for number := range of.Count {
			if err := state.Set(fmt.Sprintf("fill/%05d", number), []byte("1")); err != nil {
				return err
			}
		}
		return c.text("ok")
	},
	"keys":   listed,
	"bucket": bucket,
	"visit":  visit,
	"bad-key": func(c call) error {
		return c.done(state.Set("", []byte("x")))
	},
	"bad-key-caught": func(c call) error {
		if state.Set("", []byte("x")) != nil {
			return c.text("refused")
		}
		return c.text("taken")
	},
	"set-then-reject": func(c call) error { return c.undone(wattle.Reject("on purpose")) },
	"set-then-retry":  func(c call) error { return c.undone(wattle.Retry("on purpose")) },
	"set-then-panic": func(c call) error {
		if err := c.undone(nil); err != nil {
			return err
		}
		panic("on purpose")
	},
}

func (c call) done(err error) error {
	if err != nil {
		return err
	}
	return c.text("ok")
}

// undone writes what the failure that follows takes back.
func (c call) undone(failure error) error {
	if err := state.Set(string(c.Data), []byte("undone")); err != nil {
		return err
	}
	return failure
}

func listed(c call) error {
	all := []string{}
	for key, err := range state.Keys() {
		if err != nil {
			return err
		}
		all = append(all, key)
	}
	return c.text(strings.Join(all, "\n"))
}

func bucket(c call) error {
	var of struct {
		Bucket string `json:"bucket"`
		Key    string `json:"key"`
		Value  string `json:"value"`
	}
	if err := c.JSON(&of); err != nil {
		return err
	}
	there, err := state.Open(of.Bucket)
	if err != nil {
		return err
	}
	if err := there.Set(of.Key, []byte(of.Value)); err != nil {
		return err
	}
	var both struct {
		There   *string `json:"there"`
		Default *string `json:"default"`
	}
	if both.There, err = readable(there.Get(of.Key)); err != nil {
		return err
	}
	if both.Default, err = readable(state.Get(of.Key)); err != nil {
		return err
	}
	return c.json(both)
}

func readable(value []byte, err error) (*string, error) {
	if value == nil || err != nil {
		return nil, err
	}
	return new(string(value)), nil
}

func visit(c call) error {
	var visits struct {
		Count uint64 `json:"count"`
		Last  string `json:"last"`
	}
	if _, err := state.GetJSON("visit", &visits); err != nil {
		return err
	}
	visits.Count++
	visits.Last = string(c.Data)
	if err := state.SetJSON("visit", visits); err != nil {
		return err
	}
	return c.json(visits)
}
