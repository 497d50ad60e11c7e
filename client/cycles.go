package client

import (
	"bytes"
	"encoding"
	"fmt"
	"reflect"
	"strings"
	"sync"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// The library follows pointers without a bound, so a value that contains itself would end the
// process: no stack is left. Encode walks a value before the library does. What the methods of a
// type write is looked at as it comes, by guard.

const maxLinks = 64 // pointers, interfaces and embedded structs in a row

// unfit says which part of a value cannot be encoded.
type unfit struct{ path, why string }

func (e *unfit) Error() string {
	path := e.path
	if len(path) > 200 {
		path = path[:100] + "…" + path[len(path)-100:]
	}
	return strings.ToValidUTF8("the value"+path+" "+e.why, "…")
}

// within puts a step before the path of an error, if there is one.
func within(err error, format string, step any) error {
	if e, ok := err.(*unfit); ok {
		e.path = fmt.Sprintf(format, step) + e.path
	}
	return err
}

// walk follows a value to its ends.
type walk struct{ containers int }

// value follows a value that depth arrays and maps enclose, the last one by some links.
func (w *walk) value(v reflect.Value, depth, links int) error {
	if isFlat(v.Kind()) {
		return nil
	}
	shape := shapeOf(v.Type())
	switch {
	case shape.own:
		return nil
	case shape.endless:
		return &unfit{why: fmt.Sprintf("is of type %s, which contains itself: use another type", v.Type())}
	case v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface:
		if v.IsNil() {
			return nil
		}
		if links >= maxLinks {
			return &unfit{why: "is a pointer that leads to itself: store what it should lead to"}
		}
		return w.value(v.Elem(), depth, links+1)
	case depth == wire.MaxLevels:
		return &unfit{why: fmt.Sprintf("is deeper than %d levels, as a value that contains itself is: "+
			"store a deep one as text, such as JSON", wire.MaxLevels)}
	}
	if w.containers++; w.containers > wire.MaxElements {
		return fmt.Errorf("it has more than %d elements: store it in parts", wire.MaxElements)
	}
	return w.elements(v, shape, depth, links)
}

// elements follows what is in an array, a map or a struct.
func (w *walk) elements(v reflect.Value, shape *shape, depth, links int) (err error) {
	switch v.Kind() {
	case reflect.Struct:
		for _, f := range shape.fields {
			inner, row := depth+1, 0
			if f.embedded { // the library makes its fields those of the struct
				inner, row = depth, links+1
			}
			if err = w.value(v.Field(f.index), inner, row); err != nil {
				return within(err, ".%s", f.name)
			}
		}
	case reflect.Map:
		flat := isFlat(v.Type().Key().Kind()) && isFlat(v.Type().Elem().Kind())
		for it := v.MapRange(); !flat && it.Next(); {
			if err = w.value(it.Key(), depth+1, 0); err == nil {
				err = w.value(it.Value(), depth+1, 0)
			}
			if err != nil {
				return within(err, "[%s]", keyName(it.Key()))
			}
		}
	default:
		flat := isFlat(v.Type().Elem().Kind())
		for i := 0; !flat && i < v.Len(); i++ {
			if err = w.value(v.Index(i), depth+1, 0); err != nil {
				return within(err, "[%d]", i)
			}
		}
	}
	return nil
}

// keyName returns a map's key as it is in an error: no text of a value that contains itself.
func keyName(key reflect.Value) string {
	for key.Kind() == reflect.Interface {
		key = key.Elem()
	}
	switch {
	case key.Kind() == reflect.String:
		return fmt.Sprintf("%.40q", key.String())
	case isFlat(key.Kind()):
		return fmt.Sprint(key)
	}
	return key.Type().String()
}

// isFlat reports whether values of a kind contain no others.
func isFlat(k reflect.Kind) bool {
	switch k {
	case reflect.Pointer, reflect.Interface, reflect.Slice, reflect.Array, reflect.Map, reflect.Struct:
		return false
	}
	return true
}

// shape is what there is to know of a type.
type shape struct {
	own     bool    // its methods encode it
	endless bool    // it contains itself, so that already the library's look at it would not end
	fields  []field // of a struct, those that are encoded
}

type field struct {
	index    int
	name     string
	embedded bool
}

var shapes sync.Map // from reflect.Type to *shape

var owners = []reflect.Type{
	reflect.TypeFor[msgpack.CustomEncoder](), reflect.TypeFor[msgpack.Marshaler](),
	reflect.TypeFor[encoding.BinaryMarshaler](), reflect.TypeFor[encoding.TextMarshaler](),
}

func shapeOf(t reflect.Type) *shape {
	if s, ok := shapes.Load(t); ok {
		return s.(*shape)
	}
	s := &shape{endless: isEndless(t, 0)}
	for _, o := range owners {
		s.own = s.own || t.Kind() != reflect.Interface && (t.Implements(o) || reflect.PointerTo(t).Implements(o))
	}
	for i := 0; t.Kind() == reflect.Struct && i < t.NumField(); i++ {
		f := t.Field(i)
		if name, _, _ := strings.Cut(f.Tag.Get("msgpack"), ","); name != "-" && (f.IsExported() || f.Anonymous) {
			s.fields = append(s.fields, field{i, f.Name, f.Anonymous && isStruct(f.Type)})
		}
	}
	shapes.Store(t, s)
	return s
}

// isStruct reports whether a type is a struct, or leads to one by a pointer.
func isStruct(t reflect.Type) bool {
	return t.Kind() == reflect.Struct || t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct
}

// isEndless reports whether a type is a pointer to itself, or embeds itself.
func isEndless(t reflect.Type, links int) bool {
	switch {
	case links > maxLinks:
		return true
	case t.Kind() == reflect.Pointer:
		return isEndless(t.Elem(), links+1)
	case t.Kind() == reflect.Struct:
		for i := range t.NumField() {
			if f := t.Field(i); f.Anonymous && f.Tag.Get("msgpack") != "-" && isEndless(f.Type, links+1) {
				return true
			}
		}
	}
	return false
}

// guard is what the library writes to. It fails soon after a value has become too deep or too
// large.
type guard struct {
	bytes.Buffer
	next int // bytes at which it looks again
}

func (g *guard) look() error {
	if g.Len() < g.next {
		return nil
	}
	g.next = 2*g.Len() + 1<<16
	return wire.CheckPart(g.Bytes())
}

func (g *guard) Write(b []byte) (int, error) {
	if err := g.look(); err != nil {
		return 0, err
	}
	return g.Buffer.Write(b)
}

func (g *guard) WriteByte(c byte) error {
	if err := g.look(); err != nil {
		return err
	}
	return g.Buffer.WriteByte(c)
}
