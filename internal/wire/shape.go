package wire

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"

	"github.com/tinylib/msgp/msgp"
)

// shape is what a structured body must look like before the decoder gets it.
// The decoder takes nil for an empty text, and nil, an empty array or a map for
// an array of zeros: a flush whose namespace is nil would be one of everything.
type shape struct {
	kind   reflect.Kind      // String, Slice, Map or Struct
	elem   *shape            // of a slice; of a map's values; nil takes anything
	fields []*shape          // of a struct that is an array
	named  map[string]*shape // of a struct that is a map; nil otherwise
}

var (
	errNilText = errors.New("nil where a text must be")
	text       = &shape{kind: reflect.String}
	shapes     sync.Map // reflect.Type → *shape
)

// shapeOf returns the shape of a type's values, nil for those that the decoder
// takes as they are: numbers, bytes and what is of any type.
func shapeOf(t reflect.Type) *shape {
	switch {
	case t.Kind() == reflect.String:
		return text
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		return nil
	case t.Kind() == reflect.Map:
		return &shape{kind: reflect.Map, elem: shapeOf(t.Elem())}
	case t.Kind() == reflect.Slice:
		if elem := shapeOf(t.Elem()); elem != nil {
			return &shape{kind: reflect.Slice, elem: elem}
		}
	case t.Kind() == reflect.Struct:
		if s, ok := shapes.Load(t); ok {
			return s.(*shape)
		}
		s := structShape(t)
		shapes.Store(t, s)
		return s
	}
	return nil
}

func structShape(t reflect.Type) *shape {
	s := &shape{kind: reflect.Struct, named: map[string]*shape{}}
	for i := range t.NumField() {
		f := t.Field(i)
		name, how, _ := strings.Cut(f.Tag.Get("msgpack"), ",")
		if name == "" {
			name = f.Name
		}
		switch of := shapeOf(f.Type); {
		case f.Name == "_msgpack" && how == "as_array":
			s.named = nil
		case s.named == nil:
			s.fields = append(s.fields, of)
		case how == "omitempty": // nil is as good as left out
		default:
			s.named[name] = of
		}
	}
	return s
}

// check reads one value of the shape from walked bytes and returns the rest.
func (s *shape) check(b []byte) (rest []byte, err error) {
	if s == nil || msgp.IsNil(b) && (s.kind == reflect.Slice || s.kind == reflect.Map) {
		return skip(b, 0)
	}
	if msgp.IsNil(b) && s.kind == reflect.String {
		return nil, errNilText
	}
	switch {
	case s.kind == reflect.Slice:
		return s.array(b)
	case s.kind == reflect.Struct && s.named == nil:
		return s.array(b)
	case s.kind == reflect.String:
		return skip(b, 0)
	}
	return s.pairs(b)
}

// array checks a slice's elements, or a struct's fields.
func (s *shape) array(b []byte) ([]byte, error) {
	n, b, err := msgp.ReadArrayHeaderBytes(b)
	if err == nil && s.kind == reflect.Struct && int(n) != len(s.fields) {
		err = fmt.Errorf("an array of %d elements, want %d", n, len(s.fields))
	}
	elem := s.elem
	for i := 0; i < int(n) && err == nil; i++ {
		if s.kind == reflect.Struct {
			elem = s.fields[i]
		}
		b, err = elem.check(b)
	}
	return b, err
}

// pairs checks a map's keys and values, or those of a struct that is a map.
func (s *shape) pairs(b []byte) ([]byte, error) {
	n, b, err := msgp.ReadMapHeaderBytes(b)
	for i := 0; i < int(n) && err == nil; i++ {
		var rest []byte
		if rest, err = text.check(b); err != nil {
			break
		}
		elem := s.elem
		if s.kind == reflect.Struct {
			elem = s.named[nameOf(b[:len(b)-len(rest)])]
		}
		b, err = elem.check(rest)
	}
	return b, err
}

// nameOf returns a text; what is none has no name.
func nameOf(b []byte) string {
	v, _, err := msgp.ReadStringZC(b)
	if err != nil {
		v, _, _ = msgp.ReadBytesZC(b)
	}
	return string(v)
}
