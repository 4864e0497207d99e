package main

import (
	"encoding/json/jsontext"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	"wattle/internal/settings"
)

// library is the path by which a plugin imports the library.
const library = "wattle"

// plugin is what the source declares.
type plugin struct {
	stateVersion string
	about        string
	settings     []setting
	// place is where the configuration is asked for.
	place string
}

type setting struct {
	name, about, place string
	of                 kind
	// standard is the text of the default.
	standard   *string
	isOptional bool
}

// kind is a type that a setting can have.
type kind struct {
	schema string
	// value is a text as JSON.
	value func(text string) (string, error)
}

var kinds = map[string]kind{
	"string": {`"type":"string"`, func(text string) (string, error) { return string(quoted(nil, text)), nil }},
	"bool":   {`"type":"boolean"`, boolean},
	"int":    signed(math.MinInt32, math.MaxInt32),
	"int8":   signed(math.MinInt8, math.MaxInt8),
	"int16":  signed(math.MinInt16, math.MaxInt16),
	"int32":  signed(math.MinInt32, math.MaxInt32),
	"int64":  signed(math.MinInt64, math.MaxInt64),
	"uint":   unsigned(math.MaxUint32),
	"uint8":  unsigned(math.MaxUint8),
	"uint16": unsigned(math.MaxUint16),
	"uint32": unsigned(math.MaxUint32),
	"uint64": unsigned(math.MaxUint64),
	// A number of JSON is one of Go as well.
	"float32": {`"type":"number"`, number},
	"float64": {`"type":"number"`, number},
}

func boolean(text string) (string, error) {
	if text != "true" && text != "false" {
		return "", fmt.Errorf("%q is neither true nor false", text)
	}
	return text, nil
}

func number(text string) (string, error) {
	if value := jsontext.Value(text); !value.IsValid() || value.Kind() != '0' {
		return "", fmt.Errorf("%q is no number", text)
	}
	return text, nil
}

// signed and unsigned are whole numbers; int and uint are as large as they are where plugins run.
func signed(least, most int64) kind {
	schema := fmt.Sprintf(`"type":"integer","minimum":%d,"maximum":%d`, least, most)
	return kind{schema, func(text string) (string, error) {
		value, err := strconv.ParseInt(text, 10, 64)
		if err != nil || value < least || value > most {
			return "", fmt.Errorf("%q is no whole number from %d to %d", text, least, most)
		}
		return strconv.FormatInt(value, 10), nil
	}}
}

func unsigned(most uint64) kind {
	schema := fmt.Sprintf(`"type":"integer","minimum":0,"maximum":%d`, most)
	return kind{schema, func(text string) (string, error) {
		value, err := strconv.ParseUint(text, 10, 64)
		if err != nil || value > most {
			return "", fmt.Errorf("%q is no whole number from 0 to %d", text, most)
		}
		return strconv.FormatUint(value, 10), nil
	}}
}

// read reads the source of a folder: the package in it, without its tests.
func read(folder string) (*plugin, error) {
	paths, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		return nil, err
	}
	positions := token.NewFileSet()
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		file, err := parser.ParseFile(positions, filepath.Base(path), text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	p := new(plugin)
	for _, file := range files {
		if err := p.look(file, files, positions); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// look finds the declarations of a file; the struct of the configuration may be in another one.
func (p *plugin) look(file *ast.File, files []*ast.File, positions *token.FileSet) (err error) {
	name := imported(file)
	if name == "" {
		return nil
	}
	ast.Inspect(file, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.ValueSpec:
			if isOf(node.Type, name, "StateVersion") && err == nil {
				err = p.version(node, positions)
			}
		case *ast.IndexExpr:
			if isOf(node.X, name, "Config") && err == nil {
				err = p.configuration(node, files, positions)
			}
		}
		return err == nil
	})
	return err
}

// imported is the name by which a file has the library; "": it does not.
func imported(file *ast.File) string {
	for _, each := range file.Imports {
		if path, _ := strconv.Unquote(each.Path.Value); path != library {
			continue
		}
		if each.Name != nil {
			return each.Name.Name
		}
		return library
	}
	return ""
}

func isOf(node ast.Expr, library, name string) bool {
	selector, ok := node.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	of, ok := selector.X.(*ast.Ident)
	return ok && of.Name == library && selector.Sel.Name == name
}

func (p *plugin) version(spec *ast.ValueSpec, positions *token.FileSet) error {
	place := positions.Position(spec.Pos())
	if len(spec.Values) != 1 {
		return fmt.Errorf("%s: a version of the state is one constant, as in `const v wattle.StateVersion = 2`", place)
	}
	literal, ok := spec.Values[0].(*ast.BasicLit)
	if !ok || literal.Kind != token.INT {
		return fmt.Errorf("%s: a version of the state is written as a number: wattle build reads it from the source", place)
	}
	value, err := strconv.ParseUint(literal.Value, 0, 32)
	if err != nil {
		return fmt.Errorf("%s: %s is no version of the state: it is a number of 32 bits", place, literal.Value)
	}
	if p.stateVersion != "" {
		return fmt.Errorf("%s: another version of the state is declared before", place)
	}
	p.stateVersion = strconv.FormatUint(value, 10)
	return nil
}

func (p *plugin) configuration(call *ast.IndexExpr, files []*ast.File, positions *token.FileSet) error {
	place := positions.Position(call.Pos()).String()
	name, ok := call.Index.(*ast.Ident)
	if !ok {
		return fmt.Errorf("%s: the type of a configuration is a struct of this package, by its name", place)
	}
	spec, about := declared(name.Name, files)
	if spec == nil {
		return fmt.Errorf("%s: there is no type %s in this package", place, name.Name)
	}
	body, ok := spec.Type.(*ast.StructType)
	if !ok {
		return fmt.Errorf("%s: a configuration is a struct, and %s is none", place, name.Name)
	}
	found := []setting{}
	for _, field := range body.Fields.List {
		settings, err := fields(field, positions)
		if err != nil {
			return err
		}
		found = append(found, settings...)
	}
	if p.settings != nil && !reflect.DeepEqual(p.names(), (&plugin{settings: found}).names()) {
		return fmt.Errorf("%s: a plugin has one configuration, and another one is read at %s", place, p.place)
	}
	p.settings, p.about, p.place = found, about, place
	return nil
}

func (p *plugin) names() []string {
	names := []string{}
	for _, setting := range p.settings {
		names = append(names, setting.place+setting.name)
	}
	return names
}

// declared is a type of the package, and its comment.
func declared(name string, files []*ast.File) (*ast.TypeSpec, string) {
	for _, file := range files {
		for _, each := range file.Decls {
			general, ok := each.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range general.Specs {
				if spec, ok := spec.(*ast.TypeSpec); ok && spec.Name.Name == name {
					if spec.Doc != nil {
						return spec, comment(spec.Doc)
					}
					return spec, comment(general.Doc)
				}
			}
		}
	}
	return nil, ""
}

func comment(group *ast.CommentGroup) string {
	return strings.TrimSpace(group.Text())
}

// fields are the settings of a line of a struct.
func fields(field *ast.Field, positions *token.FileSet) ([]setting, error) {
	place := positions.Position(field.Pos()).String()
	of, isPointer := field.Type, false
	if star, ok := of.(*ast.StarExpr); ok {
		of, isPointer = star.X, true
	}
	name, _ := of.(*ast.Ident)
	if name == nil || len(field.Names) == 0 {
		return nil, fmt.Errorf("%s: a setting is a field that is a string, a bool, a number, or a pointer to one", place)
	}
	kind, ok := kinds[name.Name]
	if !ok {
		return nil, fmt.Errorf("%s: a setting is a string, a bool or a number, and %s is none", place, name.Name)
	}
	about := comment(field.Doc)
	if about == "" {
		about = comment(field.Comment)
	}
	var tag reflect.StructTag
	if field.Tag != nil {
		text, err := strconv.Unquote(field.Tag.Value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", place, err)
		}
		tag = reflect.StructTag(text)
	}
	found := []setting{}
	for _, each := range field.Names {
		if !each.IsExported() {
			return nil, fmt.Errorf("%s: the setting %s needs a name that begins with a capital letter", place, each.Name)
		}
		one := setting{name: settings.Name(each.Name, tag), about: about, place: place, of: kind, isOptional: isPointer}
		if standard, ok := tag.Lookup("default"); ok {
			one.standard = &standard
		}
		found = append(found, one)
	}
	return found, nil
}
