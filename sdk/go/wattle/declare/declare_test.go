package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func declares(t *testing.T, sources ...string) ([][2]string, error) {
	t.Helper()
	folder := t.TempDir()
	for index, source := range sources {
		name := string(rune('a'+index)) + ".go"
		if err := os.WriteFile(filepath.Join(folder, name), []byte(source), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	plugin, err := read(folder)
	if err != nil {
		return nil, err
	}
	return plugin.sections()
}

func TestAConfigurationIsAJSONSchemaWithTheCommentsAsDescriptions(t *testing.T) {
	sections, err := declares(t, `package main
import bus "wattle"
const version bus.StateVersion = 3
func handle() { bus.Config[Settings](); bus.Config[Settings]() }
`, `package main
// Settings are what the "greeter" is told.
type Settings struct {
	// What it begins with.
	Word string `+"`default:\"He\\\"llo\"`"+`
	TimesPerDay uint32 `+"`default:\"1\"`"+` // How often.
	End *string
	URLPrefix string
	Ratio float64 `+"`setting:\"share\" default:\"0.5\"`"+`
}
`)
	if err != nil {
		t.Fatal(err)
	}
	expected := [][2]string{
		{"wattle:state-version", "3"},
		{"wattle:config-schema", `{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object",` +
			`"description":"Settings are what the \"greeter\" is told.","additionalProperties":false,"properties":{` +
			`"word":{"type":"string","description":"What it begins with.","default":"He\"llo"},` +
			`"times_per_day":{"type":"integer","minimum":0,"maximum":4294967295,"description":"How often.","default":1},` +
			`"end":{"type":"string"},"url_prefix":{"type":"string"},"share":{"type":"number","default":0.5}},` +
			`"required":["url_prefix"]}`},
	}
	if len(sections) != 2 || sections[0] != expected[0] || sections[1] != expected[1] {
		t.Errorf("%q", sections)
	}
}

func TestAPluginThatDeclaresNothingHasNoSections(t *testing.T) {
	without := "package main\nfunc main() {}\n"
	sections, err := declares(t, without, "package main\nimport \"wattle\"\nvar _ = wattle.Reject\n")
	if err != nil || len(sections) != 0 {
		t.Error(sections, err)
	}
}

func TestWhatCannotBeDeclaredIsNamedByItsLine(t *testing.T) {
	head := "package main\nimport \"wattle\"\nvar a, _ = wattle.Config[A]()\n"
	for _, each := range [][2]string{
		{head, "a.go:3:12: there is no type A"},
		{head + "type A int\n", "a.go:3:12: a configuration is a struct"},
		{head + "type A struct{ B []int }\n", "a.go:4:16: a setting is a field"},
		{
			head + "type A struct{ B error }\n",
			"a.go:4:16: a setting is a string, a bool or a number, and error is none",
		},
		{head + "type A struct{ b int }\n", "a.go:4:16: the setting b needs a name"},
		{head + "type A struct{ B uint8 `default:\"256\"` }\n", "a.go:4:16: the default of `b` does not fit"},
		{
			head + "type A struct{ B int }\ntype C struct{}\nvar c, _ = wattle.Config[C]()",
			"a plugin has one configuration",
		},
		{
			head + "type A struct{}\nconst v wattle.StateVersion = 1 + 1\n",
			"a.go:5:7: a version of the state is written as a number",
		},
		{"package main\nfunc {", "a.go:2:6"},
	} {
		_, err := declares(t, each[0])
		if err == nil || !strings.Contains(err.Error(), each[1]) {
			t.Errorf("%s: %v", each[0], err)
		}
	}
}
