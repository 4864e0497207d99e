// Package strict reads JSON by encoding/json/v2, and holds that what a type needs is there. Its errors have the path
// of the field that does not fit.
package strict

import (
	"bytes"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// Unmarshal reads data into what a pointer points to.
func Unmarshal(data []byte, into any) error {
	// The bus, and the libraries of other languages, take the last of names that occur twice.
	twice := jsontext.AllowDuplicateNames(true)
	if err := json.Unmarshal(data, into, twice); err != nil {
		return explained(err, data)
	}
	of := reflect.TypeOf(into).Elem()
	if !planned(of).isChecked {
		return nil
	}
	w := walk{jsontext.NewDecoder(bytes.NewBuffer(data), twice)}
	return w.value(of)
}

// explained gives an error of encoding/json/v2 a path and plain words.
func explained(err error, data []byte) error {
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) {
		before := data[:min(int(syntax.ByteOffset), len(data))]
		line := bytes.Count(before, []byte("\n")) + 1
		column := len(before) - bytes.LastIndexByte(before, '\n')
		return fmt.Errorf("it is not JSON: %w at line %d, column %d", syntax.Err, line, column)
	}
	var semantic *json.SemanticError
	if !errors.As(err, &semantic) {
		return err
	}
	switch {
	case semantic.JSONKind == 'n':
		return unfit(semantic.JSONPointer, "is null, and should be "+wanted(semantic.GoType))
	case semantic.JSONKind == '0' && isNumber(semantic.GoType):
		return unfit(semantic.JSONPointer, "is not "+wanted(semantic.GoType))
	case semantic.Err != nil:
		return unfit(semantic.JSONPointer, fmt.Sprintf("does not fit: %v", semantic.Err))
	default:
		return unfit(semantic.JSONPointer, "is "+kind(semantic.JSONKind)+", and should be "+wanted(semantic.GoType))
	}
}

// unfit is an error about a value, without its content: it may be a secret, and reasons are kept.
func unfit(pointer jsontext.Pointer, what string) error {
	if at := path(pointer); at != "" {
		return errors.New(at + " " + what)
	}
	return errors.New("it " + what)
}

// path writes a JSON pointer as items[3].qty.
func path(pointer jsontext.Pointer) string {
	var text strings.Builder
	for token := range pointer.Tokens() {
		switch {
		case strings.Trim(token, "0123456789") == "":
			text.WriteString("[" + token + "]")
		case text.Len() == 0:
			text.WriteString(token)
		default:
			text.WriteString("." + token)
		}
	}
	return text.String()
}

func kind(of jsontext.Kind) string {
	switch of {
	case 'n':
		return "null"
	case 't', 'f':
		return "a boolean"
	case '0':
		return "a number"
	case '"':
		return "a text"
	case '[':
		return "an array"
	default:
		return "an object"
	}
}

func isNumber(of reflect.Type) bool {
	return of != nil && of.Kind() >= reflect.Int && of.Kind() <= reflect.Float64
}

// wanted is what a type is in JSON.
func wanted(of reflect.Type) string {
	for of != nil && of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	switch {
	case of == nil:
		return "something else"
	case of.Kind() == reflect.String:
		return "a text"
	case of.Kind() == reflect.Bool:
		return "a boolean"
	case of.Kind() >= reflect.Int && of.Kind() <= reflect.Int64:
		return fmt.Sprintf("a whole number of %d bits", of.Bits())
	case of.Kind() >= reflect.Uint && of.Kind() <= reflect.Uint64:
		return fmt.Sprintf("a whole number from 0 to %d", uint64(1<<of.Bits()-1))
	case isNumber(of):
		return "a number"
	case of.Kind() == reflect.Slice && of.Elem().Kind() == reflect.Uint8:
		return "a text in base64"
	case of.Kind() == reflect.Slice || of.Kind() == reflect.Array:
		return "an array"
	case of.Kind() == reflect.Struct || of.Kind() == reflect.Map:
		return "an object"
	default:
		return of.String()
	}
}
