package strict

import (
	"strings"
	"testing"
	"time"
)

type line struct {
	SKU string  `json:"sku"`
	Qty uint32  `json:"qty"`
	No  float64 `json:"no,omitzero"`
}

type base struct {
	ID int64 `json:"id"`
}

type order struct {
	base
	Lines  []line            `json:"lines"`
	Note   *string           `json:"note"`
	Tags   map[string]line   `json:"tags,omitempty"`
	Nested *struct{ X bool } `json:"nested"`
	Any    any               `json:"any"`
	When   time.Time         `json:"when,omitzero"`
	Parent *order            `json:"parent"`
}

func TestWhatFitsIsRead(t *testing.T) {
	for _, text := range []string{
		`{"id":-9223372036854775808,"lines":[],"any":null}`,
		`{"id":1,"lines":[{"sku":"a","qty":4294967295}],"any":{"x":[1]},"note":null,"more":{"id":"x"}}`,
		`{"id":1,"id":2,"lines":[{"sku":"a","qty":0,"no":null}],"any":1,"tags":null,"when":"2026-01-05T08:02:18Z"}`,
		`{"id":1,"lines":[],"any":1,"parent":{"id":2,"lines":[],"any":1},"tags":{"a":{"sku":"a","qty":1}}}`,
	} {
		var read order
		if err := Unmarshal([]byte(text), &read); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestWhatDoesNotFitIsNamedByItsPath(t *testing.T) {
	for text, expected := range map[string]string{
		`{"lines":[],"any":1}`:          "id is missing",
		`{"id":1,"any":1}`:              "lines is missing",
		`{"id":1,"lines":null,"any":1}`: "lines is null, and should be an array",
		`{"id":1,"lines":[{"sku":"a","qty":1},{"sku":"a"}],"any":1}`: "lines[1].qty is missing",
		`{"id":1,"lines":[{"sku":null,"qty":1}],"any":1}`:            "lines[0].sku is null, and should be a text",
		`{"id":1,"lines":[{"sku":"a","qty":"1"}],"any":1}`: "" +
			"lines[0].qty is a text, and should be a whole number from 0 to 4294967295",
		`{"id":1,"lines":[{"sku":"a","qty":-1}],"any":1}`: "" +
			"lines[0].qty is not a whole number from 0 to 4294967295",
		`{"id":1.0,"lines":[],"any":1}`:                        "id is not a whole number of 64 bits",
		`{"ID":1,"lines":[],"any":1}`:                          "id is missing",
		`{"id":1,"lines":[],"any":1,"nested":{}}`:              "nested.X is missing",
		`{"id":1,"lines":[],"any":1,"tags":{"a":{"sku":"a"}}}`: "tags.a.qty is missing",
		`{"id":1,"lines":[],"any":1,"parent":{"id":1,"lines":[{"sku":"a"}],"any":{}}}`: "" +
			"parent.lines[0].qty is missing",
		`[]`:          "it is an array, and should be an object",
		`{"id":1,`:    "it is not JSON: ",
		"{\n\"id\" 1": "at line 2, column 6",
		`{"id":1,"lines":[],"any":1,"when":"yesterday"}`: "when does not fit: ",
	} {
		var read order
		err := Unmarshal([]byte(text), &read)
		if err == nil || !strings.Contains(err.Error(), expected) {
			t.Errorf("%s: %v, and not %s", text, err, expected)
		}
	}
}

func TestItemsThatAreNullDoNotFit(t *testing.T) {
	var read struct {
		List []int64 `json:"list"`
	}
	err := Unmarshal([]byte(`{"list":[1,null]}`), &read)
	if err == nil || err.Error() != "list[1] is null, and should be a whole number of 64 bits" {
		t.Error(err)
	}
}
