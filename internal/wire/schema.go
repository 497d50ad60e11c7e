package wire

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"

	"github.com/tinylib/msgp/msgp"
)

// schema decodes the values of a type of structured bodies, and is strict: nil is no text, an array that
// encodes a struct has the struct's elements, and a number fits its field. Else a flush with a nil
// namespace would flush all namespaces.
type schema struct {
	of     reflect.Type
	kind   reflect.Kind
	elem   *schema        // of a slice, of a map's values, or behind a pointer; nil: a slice of bytes
	fields []field        // of a struct
	least  int            // elements that an array must have if it encodes the struct; see laterTag
	named  map[string]int // fields of a struct that is encoded as a map; otherwise nil
}

type field struct {
	*schema
	index    []int // in the struct, for FieldByIndex
	optional bool  // nil means the same as leaving it out
}

var (
	errNilText = errors.New("nil where a text must be")
	schemas    sync.Map // reflect.Type → *schema
)

// laterTag marks a field that was added to an array after other versions of the program
// were in use: `wire:"later"`. It is one of the last fields. A sender of an older version
// leaves it out; it is zero then.
const laterTag = "later"

func schemaOf(t reflect.Type) *schema {
	s := &schema{of: t, kind: t.Kind()}
	switch {
	case s.kind == reflect.Struct:
		if s, ok := schemas.Load(t); ok {
			return s.(*schema)
		}
		s.addFields()
		schemas.Store(t, s)
	case s.kind == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
	case s.kind == reflect.Slice || s.kind == reflect.Map || s.kind == reflect.Pointer:
		s.elem = schemaOf(t.Elem())
	}
	return s
}

// addFields describes a struct, with the fields of structs that are embedded in it.
func (s *schema) addFields() {
	s.named = map[string]int{}
	for _, f := range reflect.VisibleFields(s.of) {
		name, how, _ := strings.Cut(cmp.Or(f.Tag.Get("msgpack"), f.Tag.Get(fallbackTag)), ",")
		switch {
		case f.Name == "_msgpack" && how == "as_array":
			s.named = nil
			continue
		case f.Anonymous || !f.IsExported():
			continue
		}
		if s.named != nil {
			s.named[cmp.Or(name, f.Name)] = len(s.fields)
		}
		s.fields = append(s.fields, field{schemaOf(f.Type), f.Index, how == "omitempty"})
		if f.Tag.Get("wire") != laterTag {
			s.least = len(s.fields)
		}
	}
}

// decode decodes one value of the schema into a zero v, and returns the bytes after it. checkMsgpack has
// checked b.
func (s *schema) decode(b []byte, v reflect.Value) (rest []byte, err error) {
	switch s.kind {
	case reflect.String:
		text, rest, err := readText(b)
		v.SetString(string(text))
		return rest, err
	case reflect.Bool:
		is, rest, err := msgp.ReadBoolBytes(b)
		v.SetBool(is)
		return rest, err
	case reflect.Float64:
		n, rest, err := msgp.ReadFloat64Bytes(b)
		v.SetFloat(n)
		return rest, err
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, rest, err := msgp.ReadInt64Bytes(b)
		if v.OverflowInt(n) {
			err = s.overflow()
		}
		v.SetInt(n)
		return rest, err
	case reflect.Struct:
		if s.named == nil {
			return s.decodeArray(b, v)
		}
		return s.decodeMap(b, v)
	case reflect.Slice, reflect.Map, reflect.Pointer:
		if msgp.IsNil(b) {
			return b[1:], nil
		}
		return s.decodeElements(b, v)
	}
	n, rest, err := msgp.ReadUint64Bytes(b)
	if v.OverflowUint(n) {
		err = s.overflow()
	}
	v.SetUint(n)
	return rest, err
}

func (s *schema) overflow() error { return fmt.Errorf("a number that %s cannot hold", s.of) }

// readText reads a text, which may be encoded as bytes, without a copy.
func readText(b []byte) (text, rest []byte, err error) {
	switch msgp.NextType(b) {
	case msgp.NilType:
		return nil, nil, errNilText
	case msgp.BinType:
		return msgp.ReadBytesZC(b)
	}
	return msgp.ReadStringZC(b)
}

// decodeElements decodes what is behind a pointer, or in a slice or map. A slice grows as its elements
// come: an array of nothing that is right takes no memory.
func (s *schema) decodeElements(b []byte, v reflect.Value) ([]byte, error) {
	switch {
	case s.kind == reflect.Pointer:
		v.Set(reflect.New(s.of.Elem()))
		return s.elem.decode(b, v.Elem())
	case s.kind == reflect.Map:
		return s.decodeMap(b, v)
	case s.elem == nil:
		text, rest, err := readText(b)
		v.SetBytes(bytes.Clone(text))
		return rest, err
	}
	n, b, err := msgp.ReadArrayHeaderBytes(b)
	v.Set(reflect.MakeSlice(s.of, 0, int(min(n, 16))))
	for i := 0; i < int(n) && err == nil; i++ {
		v.Grow(1)
		v.SetLen(i + 1)
		b, err = s.elem.decode(b, v.Index(i))
	}
	return b, err
}

// decodeArray decodes the fields of a struct. Elements after the last field are of a later version, and may
// be anything.
func (s *schema) decodeArray(b []byte, v reflect.Value) ([]byte, error) {
	n, b, err := msgp.ReadArrayHeaderBytes(b)
	if err == nil && int(n) < s.least {
		err = fmt.Errorf("an array of %d elements, want %d", n, s.least)
	}
	for i := 0; i < int(n) && err == nil; i++ {
		if i < len(s.fields) {
			b, err = s.fields[i].decode(b, v.FieldByIndex(s.fields[i].index))
		} else {
			b, err = skipValue(b, 0)
		}
	}
	return b, err
}

// decodeMap decodes the keys and values of a map, or of a struct that is encoded as a map. What the struct
// has no field for is of a later version, and may be anything.
func (s *schema) decodeMap(b []byte, v reflect.Value) ([]byte, error) {
	n, b, err := msgp.ReadMapHeaderBytes(b)
	if s.kind == reflect.Map {
		v.Set(reflect.MakeMap(s.of))
	}
	for i := 0; i < int(n) && err == nil; i++ {
		var key []byte
		if key, b, err = readText(b); err != nil {
			break
		}
		if s.kind == reflect.Map {
			value := reflect.New(s.of.Elem()).Elem()
			b, err = s.elem.decode(b, value)
			v.SetMapIndex(reflect.ValueOf(string(key)).Convert(s.of.Key()), value)
			continue
		}
		at, ok := s.named[string(key)]
		if !ok || s.fields[at].optional && msgp.IsNil(b) {
			b, err = skipValue(b, 0)
			continue
		}
		value := v.FieldByIndex(s.fields[at].index)
		value.SetZero() // of a key that comes twice
		b, err = s.fields[at].decode(b, value)
	}
	return b, err
}
