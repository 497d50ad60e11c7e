package wire

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"

	"github.com/tinylib/msgp/msgp"
)

// schema describes what a structured body must look like before the decoder reads it. The
// decoder itself is too lenient: it accepts nil for an empty text, and nil, an empty
// array or a map for an array of zeros. A flush with a nil namespace would flush all
// namespaces. The decoder also truncates numbers to the size of the field.
type schema struct {
	of     reflect.Type
	kind   reflect.Kind
	elem   *schema            // of a slice, or of a map's values; nil: accept anything
	fields []*schema          // of a struct that is encoded as an array
	least  int                // elements that such an array must have; see laterTag
	named  map[string]*schema // of a struct that is encoded as a map; otherwise nil
}

var (
	errNilText = errors.New("nil where a text must be")
	text       = &schema{kind: reflect.String, of: reflect.TypeFor[string]()}
	schemas    sync.Map // reflect.Type → *schema
)

// laterTag marks a field that was added to an array after other versions of the program
// were in use: `wire:"later"`. It is one of the last fields. A sender of an older version
// leaves it out; it is zero then.
const laterTag = "later"

// schemaOf returns the schema of a type's values. It returns nil for types that need no
// check: bytes and interfaces.
func schemaOf(t reflect.Type) *schema {
	switch t.Kind() {
	case reflect.Interface:
		return nil
	case reflect.Map:
		return &schema{of: t, kind: reflect.Map, elem: schemaOf(t.Elem())}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return nil
		}
		return &schema{of: t, kind: reflect.Slice, elem: schemaOf(t.Elem())}
	case reflect.Struct:
		if s, ok := schemas.Load(t); ok {
			return s.(*schema)
		}
		s := structSchema(t)
		schemas.Store(t, s)
		return s
	}
	return &schema{of: t, kind: t.Kind()}
}

func structSchema(t reflect.Type) *schema {
	s := &schema{of: t, kind: reflect.Struct, named: map[string]*schema{}}
	for i := range t.NumField() {
		f := t.Field(i)
		name, how, _ := strings.Cut(cmp.Or(f.Tag.Get("msgpack"), f.Tag.Get(fallbackTag)), ",")
		if name == "" {
			name = f.Name
		}
		switch of := schemaOf(f.Type); {
		case f.Name == "_msgpack" && how == "as_array":
			s.named = nil
		case s.named == nil:
			s.fields = append(s.fields, of)
			if f.Tag.Get("wire") != laterTag {
				s.least = len(s.fields)
			}
		case how == "omitempty": // nil means the same as leaving it out
		default:
			s.named[name] = of
		}
	}
	return s
}

// check reads one value of the schema and returns the bytes after it. checkMsgpack has
// checked b. It sets uneven if an array has more or fewer elements than its struct has
// fields; then the decoder needs the result of fit.
func (s *schema) check(b []byte, uneven *bool) (rest []byte, err error) {
	if s == nil || msgp.IsNil(b) && (s.kind == reflect.Slice || s.kind == reflect.Map) {
		return skipValue(b, 0)
	}
	over := false
	switch s.kind {
	case reflect.String:
		if msgp.IsNil(b) {
			return nil, errNilText
		}
		return skipValue(b, 0)
	case reflect.Slice:
		return s.array(b, uneven)
	case reflect.Map:
		return s.pairs(b, uneven)
	case reflect.Struct:
		if s.named == nil {
			return s.array(b, uneven)
		}
		return s.pairs(b, uneven)
	case reflect.Bool:
		_, rest, err = msgp.ReadBoolBytes(b)
	case reflect.Float64:
		_, rest, err = msgp.ReadFloat64Bytes(b)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		var v int64
		v, rest, err = msgp.ReadInt64Bytes(b)
		over = s.of.OverflowInt(v)
	default: // unsigned
		var v uint64
		v, rest, err = msgp.ReadUint64Bytes(b)
		over = s.of.OverflowUint(v)
	}
	if over {
		err = fmt.Errorf("a number that %s cannot hold", s.of)
	}
	return rest, err
}

// array checks the elements of a slice or the fields of a struct. Elements after the last
// field are of a later version, and may be anything.
func (s *schema) array(b []byte, uneven *bool) ([]byte, error) {
	n, b, err := msgp.ReadArrayHeaderBytes(b)
	if err == nil && s.kind == reflect.Struct && int(n) != len(s.fields) {
		*uneven = true
		if int(n) < s.least {
			err = fmt.Errorf("an array of %d elements, want %d", n, s.least)
		}
	}
	for i := 0; i < int(n) && err == nil; i++ {
		b, err = s.at(i).check(b, uneven)
	}
	return b, err
}

// at returns the schema of an array's element; nil: accept anything.
func (s *schema) at(i int) *schema {
	switch {
	case s.kind != reflect.Struct:
		return s.elem
	case i < len(s.fields):
		return s.fields[i]
	}
	return nil
}

// pairs checks the keys and values of a map, or of a struct that is encoded as a map.
func (s *schema) pairs(b []byte, uneven *bool) ([]byte, error) {
	n, b, err := msgp.ReadMapHeaderBytes(b)
	for i := 0; i < int(n) && err == nil; i++ {
		var rest []byte
		if rest, err = text.check(b, uneven); err != nil {
			break
		}
		b, err = s.under(b[:len(b)-len(rest)]).check(rest, uneven)
	}
	return b, err
}

// under returns the schema of a map's value, by its encoded key; nil: accept anything.
func (s *schema) under(key []byte) *schema {
	if s.kind == reflect.Struct {
		return s.named[nameOf(key)]
	}
	return s.elem
}

// fit appends one value of the schema to dst, and returns the bytes after it. check has
// accepted b. Each array that encodes a struct then has an element for each field: further
// ones are left out, and missing ones are nil.
func (s *schema) fit(dst, b []byte) (fitted, rest []byte) {
	if s == nil || msgp.IsNil(b) || s.kind != reflect.Slice && s.kind != reflect.Map && s.kind != reflect.Struct {
		rest, _ = skipValue(b, 0)
		return append(dst, b[:len(b)-len(rest)]...), rest
	}
	if s.kind == reflect.Map || s.named != nil {
		n, b, _ := msgp.ReadMapHeaderBytes(b)
		dst = msgp.AppendMapHeader(dst, n)
		for range n {
			after, _ := skipValue(b, 0)
			key := b[:len(b)-len(after)]
			dst, b = s.under(key).fit(append(dst, key...), after)
		}
		return dst, b
	}
	n, b, _ := msgp.ReadArrayHeaderBytes(b)
	want := n
	if s.kind == reflect.Struct {
		want = uint32(len(s.fields))
	}
	dst = msgp.AppendArrayHeader(dst, want)
	for i := range max(n, want) {
		switch {
		case i >= n:
			dst = msgp.AppendNil(dst)
		case i >= want:
			b, _ = skipValue(b, 0)
		default:
			dst, b = s.at(int(i)).fit(dst, b)
		}
	}
	return dst, b
}

// nameOf returns a text, or "" if b is not a text.
func nameOf(b []byte) string {
	v, _, err := msgp.ReadStringZC(b)
	if err != nil {
		v, _, _ = msgp.ReadBytesZC(b)
	}
	return string(v)
}
