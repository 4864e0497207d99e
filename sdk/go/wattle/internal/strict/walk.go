package strict

import (
	"encoding"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"reflect"
	"strings"
	"sync"
)

// walk goes through JSON that fits a type, and finds what encoding/json leaves zero: members that are missing, and
// null.
type walk struct{ decoder *jsontext.Decoder }

// plan is the list of checks of a type.
type plan struct {
	// isChecked: there is anything at all, here or below.
	isChecked bool
	// isNullable: null is a value of it.
	isNullable bool
	// fields are those of a struct, by their names in JSON.
	fields   map[string]field
	required int
	// item is the type of the items of an array or map.
	item reflect.Type
}

type field struct {
	of reflect.Type
	// number is its place among the required ones; -1 where it may be missing.
	number int
}

var plans sync.Map

var readers = []reflect.Type{
	reflect.TypeFor[json.Unmarshaler](),
	reflect.TypeFor[json.UnmarshalerFrom](),
	reflect.TypeFor[encoding.TextUnmarshaler](),
}

func planned(of reflect.Type) *plan {
	if known, ok := plans.Load(of); ok {
		return known.(*plan)
	}
	p := new(plan)
	// Before it is complete, for types that contain themselves: those are looked into.
	p.isChecked = true
	plans.Store(of, p)
	p.fill(of)
	return p
}

func (p *plan) fill(of reflect.Type) {
	for _, reader := range readers {
		// It reads null and everything else by its own rules.
		if of.Implements(reader) || reflect.PointerTo(of).Implements(reader) {
			p.isChecked, p.isNullable = false, true
			return
		}
	}
	switch of.Kind() {
	case reflect.Interface:
		p.isChecked, p.isNullable = false, true
	case reflect.Pointer:
		p.isNullable = true
		p.item = of.Elem()
		p.isChecked = planned(p.item).isChecked
	case reflect.Slice, reflect.Array, reflect.Map:
		if of.Elem().Kind() != reflect.Uint8 {
			p.item = of.Elem()
		}
	case reflect.Struct:
		p.fields = map[string]field{}
		p.addFields(of, true)
	}
}

// addFields adds the fields of a struct, and those of embedded ones, whose members are in the same object.
func (p *plan) addFields(of reflect.Type, isRequired bool) {
	for index := range of.NumField() {
		each := of.Field(index)
		name, options, _ := strings.Cut(each.Tag.Get("json"), ",")
		elem := each.Type
		if elem.Kind() == reflect.Pointer {
			elem = elem.Elem()
		}
		isInlined := name == "" && each.Anonymous && elem.Kind() == reflect.Struct || hasOption(options, "inline")
		switch {
		case isInlined && elem.Kind() == reflect.Struct:
			p.addFields(elem, isRequired && each.Type.Kind() != reflect.Pointer)
			continue
		case isInlined, !each.IsExported(), name == "-" && options == "", hasOption(options, "unknown"):
			continue
		}
		if name == "" {
			name = each.Name
		}
		if _, ok := p.fields[strings.Trim(name, "'")]; ok {
			// The outer one wins, as in encoding/json.
			continue
		}
		number := -1
		isOptional := each.Type.Kind() == reflect.Pointer || hasOption(options, "omitzero") || hasOption(options, "omitempty")
		if isRequired && !isOptional {
			number = p.required
			p.required++
		}
		p.fields[strings.Trim(name, "'")] = field{each.Type, number}
	}
}

func hasOption(options, wanted string) bool {
	for option := range strings.SplitSeq(options, ",") {
		if option == wanted {
			return true
		}
	}
	return false
}

// value looks at the next value, which is of a type. It cannot fail otherwise: the whole text was read before.
func (w *walk) value(of reflect.Type) error {
	p := planned(of)
	kind := w.decoder.PeekKind()
	if kind == 'n' && !p.isNullable {
		w.decoder.SkipValue()
		return unfit(w.decoder.StackPointer(), "is null, and should be "+wanted(of))
	}
	isInto := kind == '{' && p.fields != nil || (kind == '[' || kind == '{') && p.item != nil
	switch {
	case kind != 'n' && of.Kind() == reflect.Pointer && p.isChecked:
		return w.value(p.item)
	case !p.isChecked || !isInto:
		return w.decoder.SkipValue()
	case p.fields != nil:
		return w.object(p)
	default:
		return w.items(p, kind == '{')
	}
}

func (w *walk) object(p *plan) error {
	w.decoder.ReadToken()
	seen := make([]bool, p.required)
	for w.decoder.PeekKind() != '}' {
		name, err := w.decoder.ReadToken()
		if err != nil {
			return err
		}
		field, ok := p.fields[name.String()]
		if !ok {
			if err := w.decoder.SkipValue(); err != nil {
				return err
			}
			continue
		}
		isOptional := field.number < 0
		if !isOptional {
			seen[field.number] = true
		}
		if isOptional && w.decoder.PeekKind() == 'n' {
			w.decoder.SkipValue()
			continue
		}
		if err := w.value(field.of); err != nil {
			return err
		}
	}
	w.decoder.ReadToken()
	missing := ""
	for name, field := range p.fields {
		// The order of a map is random, and a reason is not.
		if field.number >= 0 && !seen[field.number] && (missing == "" || field.number < p.fields[missing].number) {
			missing = name
		}
	}
	if missing == "" {
		return nil
	}
	return unfit(w.decoder.StackPointer().AppendToken(missing), "is missing")
}

func (w *walk) items(p *plan, isObject bool) error {
	w.decoder.ReadToken()
	for kind := w.decoder.PeekKind(); kind != ']' && kind != '}'; kind = w.decoder.PeekKind() {
		if isObject {
			w.decoder.ReadToken()
		}
		if err := w.value(p.item); err != nil {
			return err
		}
	}
	_, err := w.decoder.ReadToken()
	return err
}
