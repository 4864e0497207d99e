// Package settings has what the library and wattle/declare both know of a configuration.
package settings

import (
	"reflect"
	"strings"
	"unicode"
)

// Name is the name of the setting of a field: that of its tag, or its own in lower case with _ between words.
func Name(field string, tag reflect.StructTag) string {
	if name, ok := tag.Lookup("setting"); ok {
		return name
	}
	runes := []rune(field)
	var name strings.Builder
	for index, r := range runes {
		isStart := index > 0 && unicode.IsUpper(r) &&
			(!unicode.IsUpper(runes[index-1]) || index+1 < len(runes) && unicode.IsLower(runes[index+1]))
		if isStart {
			name.WriteByte('_')
		}
		name.WriteRune(unicode.ToLower(r))
	}
	return name.String()
}
