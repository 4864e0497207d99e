package main

import (
	"strings"
	"testing"

	"wattle/wattletest"
)

func TestAGreetingNamesTheVisitor(t *testing.T) {
	bus := wattletest.New(t)
	bus.Setting("word", "Welcome")
	result := bus.Handle(wattletest.JSON(`{"name": "Ada"}`))
	if text := result.Text(t, 0); text != `{"text":"Welcome, Ada!"}` {
		t.Error(text)
	}
}

func TestAVisitorWithoutANameIsRejected(t *testing.T) {
	bus := wattletest.New(t)
	failure := bus.Handle(wattletest.JSON(`{}`)).Failure
	if failure == nil || failure.IsRetry || !strings.HasSuffix(failure.Reason, "name is missing") {
		t.Errorf("%+v", failure)
	}
}
