package wattle

import (
	"fmt"
	"reflect"
	"strconv"

	"wattle/internal/bus"
	"wattle/internal/settings"
)

// StateVersion is the type of a constant that declares the version of the state that the handler keeps:
//
//	const stateVersion wattle.StateVersion = 2
//
// Without it the version is 0. Raise it when a handler of the version before could not read what this one writes.
// When a deploy goes from one version of the state to another and the new handler fails, the bus does not go back by
// itself: it halts and asks.
type StateVersion uint32

// configurations are the values that were read, by their type.
var configurations = map[reflect.Type]any{}

// Config gives the configuration of the topology as a struct, which declares it:
//
//	// What the greeter is told.
//	type Settings struct {
//		// What a greeting begins with.
//		Word string `default:"Hello"`
//		// How often.
//		TimesPerDay uint32 `default:"1"`
//		// What it ends with.
//		End *string
//		// There is no default: the topology has to say it.
//		Language string
//	}
//
//	settings, err := wattle.Config[Settings]()
//
// The name of a setting is that of the field in lower case, with _ between words (times_per_day), or that of the tag,
// as in `setting:"times"`. A field is a string, a bool, a number or a pointer to one of them; a pointer is nil where
// the topology says nothing. A plugin declares one configuration.
//
// wattle build reads the declaration from the source, with the comments as descriptions, and puts it into the
// component: wattle check, plan, apply, test, dev and a deploy hold the topology against it. What does not fit
// nevertheless is an error that tries the event again, because a corrected topology makes it work.
func Config[T any]() (*T, error) {
	of := reflect.TypeFor[T]()
	if read, ok := configurations[of]; ok && !bus.ConfigChanged() {
		return read.(*T), nil
	}
	into := new(T)
	if err := read(reflect.ValueOf(into).Elem()); err != nil {
		return nil, err
	}
	configurations[of] = into
	return into, nil
}

// Setting is the text of a setting of the topology, for plugins that declare none.
func Setting(name string) (string, bool) { return bus.Config(name) }

func read(into reflect.Value) error {
	if into.Kind() != reflect.Struct {
		return Retry("a configuration is a struct, and %v is none", into.Type())
	}
	for index := range into.NumField() {
		field := into.Type().Field(index)
		name := settings.Name(field.Name, field.Tag)
		text, ok := bus.Config(name)
		if !ok {
			text, ok = field.Tag.Lookup("default")
		}
		value, isPointer := into.Field(index), field.Type.Kind() == reflect.Pointer
		if !ok && isPointer {
			continue
		}
		if !ok {
			return Retry("the setting `%s` is missing: add it to this subscriber's `config:`", name)
		}
		if isPointer {
			value.Set(reflect.New(field.Type.Elem()))
			value = value.Elem()
		}
		if err := parse(text, value); err != nil {
			return Retry("the setting `%s` does not fit: %w", name, err)
		}
	}
	return nil
}

// parse says why a text does not fit without the text, which may be a secret: failures are kept.
func parse(text string, into reflect.Value) error {
	var err error
	switch into.Kind() {
	case reflect.String:
		into.SetString(text)
	case reflect.Bool:
		if text != "true" && text != "false" {
			return fmt.Errorf("it should be true or false")
		}
		into.SetBool(text == "true")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		var number int64
		number, err = strconv.ParseInt(text, 10, into.Type().Bits())
		into.SetInt(number)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		var number uint64
		number, err = strconv.ParseUint(text, 10, into.Type().Bits())
		into.SetUint(number)
	case reflect.Float32, reflect.Float64:
		var number float64
		number, err = strconv.ParseFloat(text, into.Type().Bits())
		into.SetFloat(number)
	default:
		return fmt.Errorf("a setting is a string, a bool or a number, and this one is %v", into.Type())
	}
	if err != nil {
		return fmt.Errorf("it should be a number of the type %v", into.Type())
	}
	return nil
}
