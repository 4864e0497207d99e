package main

import (
	"strings"
	"testing"

	"wattle/wattletest"
)

func TestTheCarrierFollowsFromTheCountryAndTheWeight(t *testing.T) {
	bus := wattletest.New(t)
	for data, expected := range map[string]string{
		`{"order_id":"o-1","customer":{"name":"Ada"},"items":[{"sku":"lamp","qty":2}]}`: `{"order_id":"o-1",` +
			`"carrier":"swift-post","name":"Ada","country":"DE","units":2,"grams":3600}`,
		`{"order_id":"o-2","country":"fr","customer":{"name":"Léa"},"items":[{"sku":"vase","qty":1}]}`: `{"order_id":"o-2",` +
			`"carrier":"globe-express","name":"Léa","country":"FR","units":1,"grams":500}`,
		`{"order_id":"o-3","customer":{"name":"Bo","country":"SE"},"items":[{"sku":"rug","qty":8}]}`: `{"order_id":"o-3",` +
			`"carrier":"heavy-haul","name":"Bo","country":"SE","units":8,"grams":33600}`,
	} {
		result := bus.Handle(wattletest.JSON(data))
		if text := result.Text(t, 0); text != expected {
			t.Errorf("%s, and not %s", text, expected)
		}
	}
}

func TestWhatIsNoOrderIsRejectedWithThePath(t *testing.T) {
	bus := wattletest.New(t)
	failure := bus.Handle(wattletest.JSON(`{"order_id":"o-1","customer":{"name":"Ada"},"items":[{"sku":"lamp"}]}`)).Failure
	if failure == nil || failure.IsRetry || !strings.HasSuffix(failure.Reason, "items[0].qty is missing") {
		t.Errorf("%+v", failure)
	}
}

func TestWeightsThatDoNotFitTryTheOrderAgain(t *testing.T) {
	bus := wattletest.New(t)
	bus.Setting("weights", "lamp=heavy")
	failure := bus.Handle(wattletest.JSON(`{"order_id":"o-1","customer":{"name":"Ada"},"items":[]}`)).Failure
	if failure == nil || !failure.IsRetry || !strings.Contains(failure.Reason, "`weights`") {
		t.Errorf("%+v", failure)
	}
}
