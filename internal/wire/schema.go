package wire

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/tinylib/msgp/msgp"
)

// schema encodes and decodes the values of a type of structured bodies. A struct whose fields have tags is a
// map, another one is an array. The decoder is strict: nil is no text, an array that encodes a struct has
// the struct's elements, and a number fits its field. Else a flush with a nil namespace would flush all
// namespaces.
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
	name     string // in a map, and in errors
	index    []int  // in the struct, for FieldByIndex
	optional bool   // zero is left out, and nil means the same
}

// mostGrowth bounds the memory of what is decoded by the bytes of its body. A nil for a slice takes 24 times its
// byte; an empty map, for a struct with all its fields, would take a thousand times its byte.
const mostGrowth = 64

var (
	errNilText = errors.New("nil where a text must be")
	errGrowth  = fmt.Errorf("what it holds takes more than %d times its bytes", mostGrowth)
	schemas    sync.Map // reflect.Type → *schema
)

// laterTag marks a field that was added to an array after other versions of the program
// were in use: `wire:"later"`. It is one of the last fields. A sender of an older version
// leaves it out; it is zero then.
const laterTag = "later"

// schemaOf returns the schema of a type. It panics if bodies cannot have the type: whether it does
// depends on no value, so that a test of any body of the type finds it.
func schemaOf(t reflect.Type) *schema {
	if s, ok := schemas.Load(t); ok {
		return s.(*schema)
	}
	s := &schema{of: t, kind: t.Kind()}
	switch {
	case s.kind == reflect.Struct:
		s.addFields()
	case s.kind == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
	case s.kind == reflect.Slice, s.kind == reflect.Pointer, s.kind == reflect.Map && t.Key().Kind() == reflect.String:
		s.elem = schemaOf(t.Elem())
	case s.kind == reflect.Float64, s.kind >= reflect.Bool && s.kind <= reflect.Uint64, s.kind == reflect.String:
	default:
		panic(fmt.Sprintf("wire: %s in a body", t))
	}
	schemas.Store(t, s)
	return s
}

// addFields describes a struct, with the fields of structs that are embedded in it.
func (s *schema) addFields() {
	named := map[string]int{}
	for _, f := range reflect.VisibleFields(s.of) {
		if f.Anonymous {
			continue
		}
		name, how, _ := strings.Cut(cmp.Or(f.Tag.Get("msgpack"), f.Tag.Get("json")), ",")
		if name != "" {
			named[name] = len(s.fields)
			s.named = named
		}
		s.fields = append(s.fields, field{schemaOf(f.Type), cmp.Or(name, f.Name), f.Index, how == "omitempty"})
		if f.Tag.Get("wire") != laterTag {
			s.least = len(s.fields)
		}
		if name == "-" || !f.IsExported() || how != "" && (how != "omitempty" || name == "") {
			panic(fmt.Sprintf("wire: the field %s of %s in a body", f.Name, s.of))
		}
	}
	if len(s.fields) == 0 || s.named != nil && len(named) != len(s.fields) {
		panic(fmt.Sprintf("wire: %s in a body: all its fields have names of their own, or none has", s.of))
	}
}

// encode appends a value of the schema.
func (s *schema) encode(b []byte, v reflect.Value) []byte {
	switch s.kind {
	case reflect.String:
		return msgp.AppendString(b, v.String())
	case reflect.Bool:
		return msgp.AppendBool(b, v.Bool())
	case reflect.Float64:
		return msgp.AppendFloat64(b, v.Float())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if n := v.Int(); n < 0 {
			return msgp.AppendInt64(b, n)
		}
		return msgp.AppendUint64(b, uint64(v.Int()))
	case reflect.Struct:
		return s.encodeStruct(b, v)
	case reflect.Slice, reflect.Map, reflect.Pointer:
		if v.IsNil() {
			return msgp.AppendNil(b)
		}
		return s.encodeElements(b, v)
	}
	return msgp.AppendUint64(b, v.Uint())
}

func (s *schema) encodeElements(b []byte, v reflect.Value) []byte {
	switch {
	case s.kind == reflect.Pointer:
		return s.elem.encode(b, v.Elem())
	case s.kind == reflect.Map:
		b = msgp.AppendMapHeader(b, uint32(v.Len()))
		keys := v.MapKeys()
		slices.SortFunc(keys, func(x, y reflect.Value) int { return strings.Compare(x.String(), y.String()) })
		for _, key := range keys {
			b = s.elem.encode(msgp.AppendString(b, key.String()), v.MapIndex(key))
		}
		return b
	case s.elem == nil:
		return msgp.AppendBytes(b, v.Bytes())
	}
	b = msgp.AppendArrayHeader(b, uint32(v.Len()))
	for i := range v.Len() {
		b = s.elem.encode(b, v.Index(i))
	}
	return b
}

func (s *schema) encodeStruct(b []byte, v reflect.Value) []byte {
	left := 0 // fields that are left out
	for i := range s.fields {
		if s.fields[i].optional && v.FieldByIndex(s.fields[i].index).IsZero() {
			left++
		}
	}
	if s.named == nil {
		b = msgp.AppendArrayHeader(b, uint32(len(s.fields)))
	} else {
		b = msgp.AppendMapHeader(b, uint32(len(s.fields)-left))
	}
	for i := range s.fields {
		f := &s.fields[i]
		value := v.FieldByIndex(f.index)
		if f.optional && value.IsZero() {
			continue
		}
		if s.named != nil {
			b = msgp.AppendString(b, f.name)
		}
		b = f.encode(b, value)
	}
	return b
}

// decodeBody decodes a body into a zero v.
func (s *schema) decodeBody(body []byte, v reflect.Value) error {
	room := mostGrowth * len(body)
	_, err := s.decode(body, v, &room)
	return err
}

// decode decodes one value of the schema into a zero v, and returns the bytes after it. checkMsgpack has
// checked b. room is the memory that elements may still take.
func (s *schema) decode(b []byte, v reflect.Value, room *int) (rest []byte, err error) {
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
			return s.decodeArray(b, v, room)
		}
		return s.decodeMap(b, v, room)
	case reflect.Slice, reflect.Map, reflect.Pointer:
		if msgp.IsNil(b) {
			return b[1:], nil
		}
		return s.decodeElements(b, v, room)
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

// decodeElement is decode for a value that takes memory of its own.
func (s *schema) decodeElement(b []byte, v reflect.Value, room *int) ([]byte, error) {
	if *room -= int(s.of.Size()); *room < 0 {
		return b, errGrowth
	}
	return s.decode(b, v, room)
}

// decodeElements decodes what is behind a pointer, or in a slice or map. A slice grows as its elements
// come: an array of nothing that is right takes no memory.
func (s *schema) decodeElements(b []byte, v reflect.Value, room *int) ([]byte, error) {
	switch {
	case s.kind == reflect.Pointer:
		v.Set(reflect.New(s.of.Elem()))
		return s.elem.decodeElement(b, v.Elem(), room)
	case s.kind == reflect.Map:
		return s.decodeMap(b, v, room)
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
		b, err = s.elem.decodeElement(b, v.Index(i), room)
	}
	return b, err
}

// decodeArray decodes the fields of a struct. Elements after the last field are of a later version, and may
// be anything.
func (s *schema) decodeArray(b []byte, v reflect.Value, room *int) ([]byte, error) {
	n, b, err := msgp.ReadArrayHeaderBytes(b)
	if err == nil && int(n) < s.least {
		err = fmt.Errorf("an array of %d elements, want %d", n, s.least)
	}
	for i := 0; i < int(n) && err == nil; i++ {
		if i < len(s.fields) {
			b, err = s.decodeField(i, b, v, room)
		} else {
			b, err = skipValue(b, 0)
		}
	}
	return b, err
}

// decodeMap decodes the keys and values of a map, or of a struct that is encoded as a map. What the struct
// has no field for is of a later version, and may be anything.
func (s *schema) decodeMap(b []byte, v reflect.Value, room *int) ([]byte, error) {
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
			b, err = s.elem.decodeElement(b, value, room)
			v.SetMapIndex(reflect.ValueOf(string(key)).Convert(s.of.Key()), value)
			continue
		}
		at, ok := s.named[string(key)]
		if !ok {
			b, err = skipValue(b, 0)
			continue
		}
		b, err = s.decodeField(at, b, v, room)
	}
	return b, err
}

// decodeField decodes a field of a struct, by its place. The later one of two of the same key counts.
func (s *schema) decodeField(at int, b []byte, v reflect.Value, room *int) ([]byte, error) {
	f := &s.fields[at]
	v = v.FieldByIndex(f.index)
	v.SetZero()
	if f.optional && msgp.IsNil(b) {
		return b[1:], nil
	}
	b, err := f.decode(b, v, room)
	if err != nil {
		err = fmt.Errorf("%s: %w", f.name, err)
	}
	return b, err
}
