package client

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"unicode/utf8"

	"github.com/tinylib/msgp/msgp"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// The encodings of values that the clients of all languages share. The low 8 bits of a
// value's flags name one; the upper 24 bits are the app's own. docs/CLIENTS.md has the bytes.
const (
	Bytes   = kv.Bytes   // as they are
	Integer = kv.Integer // a signed 64-bit number in decimal, on which Incr works
	Text    = kv.Text    // UTF-8
	Msgpack = kv.Msgpack // one msgpack value
)

// Encode returns the bytes of a value and the flags that name their encoding, for Set and
// the like. A []byte is Bytes, a string is Text, a number without a fraction is Integer, and
// all else is Msgpack: nil, bool, floats, time.Time, slices, maps, and structs, whose fields
// can have the tag msgpack. The error is ErrEncoding, also for a value of more than 64 levels
// of slices, maps and structs, as one that contains itself is, or of more than 1,048,576
// elements: items, keys, values and fields.
func Encode(v any) (value []byte, flags uint32, err error) {
	switch v := v.(type) {
	case []byte:
		return v, Bytes, nil
	case string:
		if !utf8.ValidString(v) {
			return nil, 0, fmt.Errorf("%w: the string is not UTF-8: give a []byte", cachesidecar.ErrEncoding)
		}
		return []byte(v), Text, nil
	}
	switch n := reflect.ValueOf(v); {
	case n.CanInt():
		return strconv.AppendInt(nil, n.Int(), 10), Integer, nil
	case n.CanUint() && n.Uint() > math.MaxInt64:
		return nil, 0, fmt.Errorf("%w: %d does not fit into 64 bits with a sign: give a string",
			cachesidecar.ErrEncoding, n.Uint())
	case n.CanUint():
		return strconv.AppendUint(nil, n.Uint(), 10), Integer, nil
	}
	if value, err = encodeMsgpack(v); err != nil {
		return nil, 0, fmt.Errorf("%w: a %T as msgpack: %w", cachesidecar.ErrEncoding, v, err)
	}
	return value, Msgpack, nil
}

func encodeMsgpack(v any) ([]byte, error) {
	var b guard
	e := msgpack.NewEncoder(&b)
	e.UseCompactInts(true)
	e.SetSortMapKeys(true)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	if err := wire.CheckValue(b.Bytes()); err != nil {
		return nil, err
	}
	_, err := checkPlain(b.Bytes())
	return b.Bytes(), err
}

// guard is the buffer to which the library writes. The library follows pointers without a
// bound. So guard checks the bytes from time to time, and ends the encoding of a value that
// contains itself before the stack is full.
type guard struct {
	bytes.Buffer
	next int // the length at which it checks again
}

func (g *guard) Write(b []byte) (int, error) {
	if err := g.check(); err != nil {
		return 0, err
	}
	return g.Buffer.Write(b)
}

func (g *guard) WriteByte(c byte) error {
	if err := g.check(); err != nil {
		return err
	}
	return g.Buffer.WriteByte(c)
}

func (g *guard) check() error {
	if g.Len() < g.next {
		return nil
	}
	g.next = 2*g.Len() + 1<<16
	return wire.CheckPart(g.Bytes())
}

// Decode decodes the value of an item into what to points to, by the encoding that the
// item's flags name. An *any takes every encoding: []byte, int64, string, and what msgpack
// has. The error is ErrEncoding if the flags name no encoding, if the bytes are not of it,
// or if the value does not fit; Item.Value has the bytes in any case.
func Decode(it cachesidecar.Item, to any) error {
	var err error
	switch mark := it.Flags & kv.EncodingMask; mark {
	case Bytes:
		err = assign(to, it.Value)
	case Text:
		if err = errors.New("the text is not UTF-8"); utf8.Valid(it.Value) {
			err = assign(to, string(it.Value))
		}
	case Integer:
		err = decodeInteger(it.Value, to)
	case Msgpack:
		err = decodeMsgpack(it.Value, to)
	default:
		err = fmt.Errorf("its flags have the mark %d, which names no encoding: use the item's bytes", mark)
	}
	if err != nil {
		return fmt.Errorf("%w: the value cannot be decoded: %w", cachesidecar.ErrEncoding, err)
	}
	return nil
}

// assign stores bytes or a string.
func assign[T []byte | string](to any, v T) error {
	p := reflect.ValueOf(to)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return fmt.Errorf("into a %T: give a pointer", to)
	}
	from := reflect.ValueOf(v)
	if p = p.Elem(); !from.Type().AssignableTo(p.Type()) && from.Kind() != p.Kind() {
		return fmt.Errorf("it is a %T, and goes not into a %T", v, to)
	}
	if p.Kind() != reflect.Interface {
		from = from.Convert(p.Type())
	}
	p.Set(from)
	return nil
}

func decodeInteger(value []byte, to any) error {
	if len(value) > 20 { // the longest is a sign and 19 digits; an error of strconv has the text
		return fmt.Errorf("%d bytes are no number of 64 bits", len(value))
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		return err
	}
	return assignInteger(to, n)
}

func assignInteger(to any, n int64) error {
	p := reflect.ValueOf(to)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return fmt.Errorf("into a %T: give a pointer", to)
	}
	switch p = p.Elem(); {
	case p.CanInt() && !p.OverflowInt(n):
		p.SetInt(n)
	case p.CanUint() && n >= 0 && !p.OverflowUint(uint64(n)):
		p.SetUint(uint64(n))
	case p.Kind() == reflect.Interface && p.NumMethod() == 0:
		p.Set(reflect.ValueOf(n))
	default:
		return fmt.Errorf("it is the number %d, and does not fit into a %T", n, to)
	}
	return nil
}

func decodeMsgpack(value []byte, to any) error {
	// The library recurses, and makes room for what an array or map announces.
	if err := wire.CheckValue(value); err != nil {
		return fmt.Errorf("%d bytes are not one msgpack value: %w", len(value), err)
	}
	if _, err := checkPlain(value); err != nil {
		return err
	}
	d := msgpack.NewDecoder(bytes.NewReader(value))
	p, ok := to.(*any)
	if !ok {
		return d.Decode(to)
	}
	d.SetMapDecoder(decodeMap)
	v, err := d.DecodeInterface()
	if err == nil {
		*p = widened(v)
	}
	return err
}

// checkPlain checks that clients in all languages can read a msgpack value: see docs/CLIENTS.md.
// It returns what follows the value.
func checkPlain(value []byte) (rest []byte, err error) {
	switch msgp.NextType(value) {
	case msgp.MapType:
		return checkMap(value)
	case msgp.ArrayType:
		n, value, err := msgp.ReadArrayHeaderBytes(value)
		for ; n > 0 && err == nil; n-- {
			value, err = checkPlain(value)
		}
		return value, err
	case msgp.StrType:
		text, value, err := msgp.ReadStringZC(value)
		if err == nil && !utf8.Valid(text) {
			err = fmt.Errorf("the string %.40q in it is not UTF-8: use bytes", text)
		}
		return value, err
	}
	return msgp.Skip(value)
}

// checkMap is checkPlain for a map. Its keys must be text or integers, and be different also as
// texts, which Node makes of integers.
func checkMap(value []byte) (rest []byte, err error) {
	n, value, err := msgp.ReadMapHeaderBytes(value)
	begin, texts, integers := value, false, false
	for left := n; left > 0 && err == nil; left-- {
		key := value
		if value, err = checkPlain(value); err != nil {
			break
		}
		switch kind := msgp.NextType(key); kind {
		case msgp.StrType:
			texts = true
		case msgp.IntType, msgp.UintType:
			integers = true
		default:
			return nil, fmt.Errorf("a map has a key of the type %s: use text or integers", kind)
		}
		if name, _, bad := msgp.ReadStringZC(key); bad == nil && string(name) == "__proto__" {
			return nil, errors.New("a map has the key __proto__, which Node cannot read: use another one")
		}
		value, err = checkPlain(value)
	}
	if err == nil && texts && integers {
		err = checkMixed(begin, n)
	}
	return value, err
}

// checkMixed checks that n keys of texts and integers are different also as texts.
func checkMixed(value []byte, n uint32) error {
	seen := map[string]bool{} // whether it is a text
	for ; n > 0; n-- {
		key, after, err := msgp.ReadIntfBytes(value)
		if err != nil {
			return err
		}
		name, text := key.(string)
		if !text {
			name = fmt.Sprint(key)
		}
		if was, is := seen[name]; is && was != text {
			return fmt.Errorf("a map has the key %.40s as text and as an integer: use one of them", name)
		}
		seen[name] = text
		if value, err = msgp.Skip(after); err != nil {
			return err
		}
	}
	return nil
}

// decodeMap decodes a map for an any: a map[string]any if all keys are text, else a
// map[any]any whose keys are text and integers.
func decodeMap(d *msgpack.Decoder) (any, error) {
	n, err := d.DecodeMapLen()
	if err != nil {
		return nil, err
	}
	texts := map[string]any{}
	var all map[any]any // in place of texts, once there is an integer
	for range n {
		key, err := d.DecodeInterface()
		if err != nil {
			return nil, err
		}
		key = widened(key)
		v, err := d.DecodeInterface()
		if err != nil {
			return nil, err
		}
		v = widened(v)
		text, ok := key.(string)
		if !ok && all == nil {
			all = map[any]any{}
			for text, v := range texts {
				all[text] = v
			}
		}
		if all != nil {
			all[key] = v
		} else {
			texts[text] = v
		}
	}
	if all != nil {
		return all, nil
	}
	return texts, nil
}

// widened returns numbers as int64, as uint64 if they are larger, and as float64.
func widened(v any) any {
	switch n := reflect.ValueOf(v); {
	case n.CanInt():
		return n.Int()
	case n.CanUint() && n.Uint() <= math.MaxInt64:
		return int64(n.Uint())
	case n.CanFloat():
		return n.Float()
	}
	if list, ok := v.([]any); ok {
		for i := range list {
			list[i] = widened(list[i])
		}
	}
	return v
}
