// Declare writes what a plugin declares in its source: its configuration and the version of its state. wattle build
// runs it in the plugin's folder, with the compiler of this machine:
//
//	go run wattle/declare FOLDER
//
// It writes FOLDER/declared.json: the sections that are to be appended to the component, each with its name and
// content. It reads the source and runs none of it.
package main

import (
	"encoding/json/jsontext"
	"encoding/json/v2"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run wattle/declare FOLDER")
		os.Exit(2)
	}
	if err := write(".", filepath.Join(os.Args[1], "declared.json")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func write(source, file string) error {
	plugin, err := read(source)
	if err != nil {
		return err
	}
	sections, err := plugin.sections()
	if err != nil {
		return err
	}
	text, err := json.Marshal(map[string]any{"sections": sections}, json.Deterministic(true))
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

// sections are the custom sections of the component, by name.
func (p *plugin) sections() ([][2]string, error) {
	sections := [][2]string{}
	if p.stateVersion != "" {
		sections = append(sections, [2]string{"wattle:state-version", p.stateVersion})
	}
	if p.settings != nil {
		schema, err := p.schema()
		if err != nil {
			return nil, err
		}
		sections = append(sections, [2]string{"wattle:config-schema", schema})
	}
	return sections, nil
}

// schema is the configuration as a JSON Schema.
func (p *plugin) schema() (string, error) {
	text := []byte(`{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object"`)
	text = described(text, p.about)
	text = append(text, `,"additionalProperties":false,"properties":{`...)
	required := []string{}
	for index, setting := range p.settings {
		if index > 0 {
			text = append(text, ',')
		}
		text = quoted(text, setting.name)
		text = append(text, (":{" + setting.of.schema)...)
		text = described(text, setting.about)
		if setting.standard != nil {
			value, err := setting.of.value(*setting.standard)
			if err != nil {
				return "", fmt.Errorf("%s: the default of `%s` does not fit: %w", setting.place, setting.name, err)
			}
			text = append(append(text, `,"default":`...), value...)
		} else if !setting.isOptional {
			required = append(required, setting.name)
		}
		text = append(text, '}')
	}
	text = append(text, `},"required":`...)
	names, err := json.Marshal(required)
	return string(text) + string(names) + "}", err
}

func described(text []byte, about string) []byte {
	if about == "" {
		return text
	}
	return quoted(append(text, `,"description":`...), about)
}

func quoted(text []byte, of string) []byte {
	text, _ = jsontext.AppendQuote(text, of)
	return text
}
