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
// can have the tag msgpack. The error is ErrEncoding.
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
	var b bytes.Buffer
	e := msgpack.NewEncoder(&b)
	e.UseCompactInts(true)
	e.SetSortMapKeys(true)
	if err := e.Encode(v); err != nil {
		return nil, 0, fmt.Errorf("%w: a %T as msgpack: %w", cachesidecar.ErrEncoding, v, err)
	}
	if _, err := checkPlain(b.Bytes()); err != nil {
		return nil, 0, fmt.Errorf("%w: a %T as msgpack: %w", cachesidecar.ErrEncoding, v, err)
	}
	return b.Bytes(), Msgpack, nil
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
		var n int64
		if n, err = strconv.ParseInt(string(it.Value), 10, 64); err == nil {
			err = assignInteger(to, n)
		}
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
	// Skip refuses a depth that would be too much for Decode's stack.
	if rest, err := msgp.Skip(value); err != nil || len(rest) > 0 {
		return fmt.Errorf("%d bytes are not one msgpack value: %v", len(value), err)
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
	begin, texts, integers := value, false, map[string]bool{}
	for left := n; left > 0 && err == nil; left-- {
		key := value
		if value, err = checkPlain(value); err != nil {
			break
		}
		switch kind := msgp.NextType(key); kind {
		case msgp.StrType:
			texts = true
		case msgp.IntType, msgp.UintType:
			i, _, _ := msgp.ReadIntfBytes(key)
			integers[fmt.Sprint(i)] = true
		default:
			return nil, fmt.Errorf("a map has a key of the type %s: use text or integers", kind)
		}
		if name, _, bad := msgp.ReadStringZC(key); bad == nil && string(name) == "__proto__" {
			return nil, errors.New("a map has the key __proto__, which Node cannot read: use another one")
		}
		value, err = checkPlain(value)
	}
	for ; texts && len(integers) > 0 && n > 0 && err == nil; n-- {
		if name, _, bad := msgp.ReadStringZC(begin); bad == nil && integers[string(name)] {
			return nil, fmt.Errorf("a map has the key %s as text and as an integer: use one of them", name)
		}
		if begin, err = msgp.Skip(begin); err == nil {
			begin, err = msgp.Skip(begin)
		}
	}
	return value, err
}

// decodeMap decodes a map for an any: a map[string]any if all keys are text, else a
// map[any]any whose keys are text and integers.
func decodeMap(d *msgpack.Decoder) (any, error) {
	n, err := d.DecodeMapLen()
	if err != nil {
		return nil, err
	}
	texts, all := map[string]any{}, map[any]any{}
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
		if text, ok := key.(string); ok {
			texts[text] = v
		}
		all[key] = v
	}
	if len(texts) < len(all) {
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
