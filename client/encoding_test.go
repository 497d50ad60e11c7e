package client_test

import (
	"encoding/hex"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestEncodings encodes values of each kind, and decodes them into an any.
func TestEncodings(t *testing.T) {
	type user struct {
		Name string `msgpack:"name"`
		Age  int    `msgpack:"age"`
	}
	for _, c := range []struct {
		name  string
		value any
		flags uint32
		bytes string // in hex
		want  any
	}{
		{"bytes", []byte{0, 255}, client.Bytes, "00ff", []byte{0, 255}},
		{"text", "Ada ✓", client.Text, "41646120e29c93", "Ada ✓"},
		{"integer", -42, client.Integer, "2d3432", int64(-42)},
		{"least", int64(math.MinInt64), client.Integer, hex.EncodeToString([]byte("-9223372036854775808")), int64(math.MinInt64)},
		{"unsigned", uint8(7), client.Integer, "37", int64(7)},
		{"nil", nil, client.Msgpack, "c0", nil},
		{"true", true, client.Msgpack, "c3", true},
		{"float", 1.5, client.Msgpack, "cb3ff8000000000000", 1.5},
		{"list", []any{1, "a"}, client.Msgpack, "9201a161", []any{int64(1), "a"}},
		{"map", map[string]any{"b": 1, "a": []byte{1}}, client.Msgpack, "82a161c40101a16201", map[string]any{"a": []byte{1}, "b": int64(1)}},
		{"map of numbers", map[int]string{1: "a"}, client.Msgpack, "8101a161", map[any]any{int64(1): "a"}},
		{"struct", user{"Ada", 36}, client.Msgpack, "82a46e616d65a3416461a361676524", map[string]any{"name": "Ada", "age": int64(36)}},
		{"time", time.Unix(1700000000, 0), client.Msgpack, "d6ff6553f100", time.Unix(1700000000, 0)},
	} {
		value, flags, err := client.Encode(c.value)
		if err != nil || flags != c.flags || hex.EncodeToString(value) != c.bytes {
			t.Errorf("%s: encoded %x with flags %d, %v; want %s with %d", c.name, value, flags, err, c.bytes, c.flags)
		}
		var got any
		it := cachesidecar.Item{Value: value, Flags: flags | 0xabcdef00} // the app's own bits
		if err := client.Decode(it, &got); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: decoded %#v, %v; want %#v", c.name, got, err, c.want)
		}
	}
	var u user
	value, flags, _ := client.Encode(user{"Ada", 36})
	if err := client.Decode(cachesidecar.Item{Value: value, Flags: flags}, &u); err != nil || u != (user{"Ada", 36}) {
		t.Errorf("struct: %+v, %v", u, err)
	}
}

// TestWrongEncodings checks that a wrong value is ErrEncoding, and names the remedy.
func TestWrongEncodings(t *testing.T) {
	for _, v := range []any{
		"\xff", []string{"a", "\xff"}, uint64(math.MaxUint64), func() {}, make(chan int), map[bool]int{true: 1},
		map[float64]int{1.5: 1}, map[any]int{nil: 1}, []any{map[any]int{1: 1, "1": 2}}, map[string]int{"__proto__": 1},
		map[string]any{"a": map[[2]int]int{{1, 2}: 3}}, map[string]int{"\xff": 1},
	} {
		if _, _, err := client.Encode(v); !errors.Is(err, cachesidecar.ErrEncoding) {
			t.Errorf("encoding a %T: %v", v, err)
		}
	}
	item := func(flags uint32, value string) cachesidecar.Item {
		return cachesidecar.Item{Value: []byte(value), Flags: flags}
	}
	var text string
	var small int8
	var any any
	for _, c := range []struct {
		name string
		it   cachesidecar.Item
		to   interface{}
		want string
	}{
		{"unknown mark", item(1, "x"), &any, "use the item's bytes"},
		{"no UTF-8", item(client.Text, "\xff"), &any, "not UTF-8"},
		{"no number", item(client.Integer, "1x"), &any, "1x"},
		{"number too large", item(client.Integer, "9223372036854775808"), &any, "out of range"},
		{"number for int8", item(client.Integer, "200"), &small, "does not fit"},
		{"bytes for text", item(client.Bytes, "x"), &text, "into a *string"},
		{"no pointer", item(client.Text, "x"), text, "give a pointer"},
		{"nil", item(client.Text, "x"), (*string)(nil), "give a pointer"},
		{"two values", item(client.Msgpack, "\x01\x02"), &any, "not one msgpack value"},
		{"no UTF-8 within", item(client.Msgpack, "\x81\x01\x92\xa1a\xa1\xff"), &any, "not UTF-8"},
		{"half a value", item(client.Msgpack, "\x92\x01"), &any, "not one msgpack value"},
		{"empty", item(client.Msgpack, ""), &any, "not one msgpack value"},
		{"bytes as a key", item(client.Msgpack, "\x81\xc4\x01a\x01"), &any, "use text"},
		{"list as a key", item(client.Msgpack, "\x81\x91\x01\x01"), &any, "use text"},
		{"unknown extension", item(client.Msgpack, "\xd4\x05\x01"), &any, "ext"},
		{"huge length", item(client.Msgpack, "\xdd\xff\xff\xff\xff"), &any, "not one msgpack value"},
		{"deep", item(client.Msgpack, strings.Repeat("\x91", 1<<20)+"\x01"), &any, "not one msgpack value"},
	} {
		err := client.Decode(c.it, c.to)
		if !errors.Is(err, cachesidecar.ErrEncoding) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// FuzzDecode decodes any bytes with any mark. What decodes can be encoded again, but for a
// number alone that Integer has no room for.
func FuzzDecode(f *testing.F) {
	for _, v := range []any{"a", -1, []any{map[string]any{"a": nil}}, time.Unix(1, 2), 1.5, []byte("b")} {
		value, flags, err := client.Encode(v)
		testenv.Must(f, err)
		f.Add(flags, value)
	}
	f.Fuzz(func(t *testing.T, flags uint32, value []byte) {
		var v any
		if client.Decode(cachesidecar.Item{Value: value, Flags: flags}, &v) != nil {
			return
		}
		if _, large := v.(uint64); large {
			return
		}
		if _, _, err := client.Encode(v); err != nil {
			t.Errorf("%#v: %v", v, err)
		}
	})
}

type linked struct {
	Name string
	Next *linked
}

// chained encodes itself.
type chained struct{ next *chained }

func (c *chained) EncodeMsgpack(e *msgpack.Encoder) error {
	if err := e.EncodeArrayLen(1); err != nil {
		return err
	}
	return e.Encode(c.next)
}

// nested returns lists within each other.
func nested(levels int) (v any) {
	for v = "x"; levels > 0; levels-- {
		v = []any{v}
	}
	return v
}

// TestBounds encodes values that contain themselves, or are deeper or larger than all languages
// read; and the deepest.
func TestBounds(t *testing.T) {
	list := []any{1, nil}
	list[1] = list
	object := map[string]any{"a": 1}
	object["b"] = []any{object}
	ring := &linked{Name: "a"}
	ring.Next = &linked{Name: "b", Next: ring}
	chain := &chained{}
	chain.next = chain
	bomb := any([]any{})
	for range 40 {
		bomb = []any{bomb, bomb}
	}
	many := msgpack.RawMessage("\xdd\x00\x10\x00\x01" + strings.Repeat("\xc0", 1<<20+1))
	for _, c := range []struct {
		name  string
		value any
		want  string
	}{
		{"a list", list, "deeper than 64 levels"}, {"a map", object, "deeper than 64 levels"},
		{"structs", ring, "deeper than 64 levels"}, {"what encodes itself", chain, "deeper than 64 levels"},
		{"65 levels", nested(65), "deeper than 64 levels"}, {"lists of two lists", bomb, "more than 1048576 elements"},
		{"elements", many, "more than 1048576 elements"},
	} {
		_, _, err := client.Encode(c.value)
		if !errors.Is(err, cachesidecar.ErrEncoding) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	value, flags, err := client.Encode(nested(64))
	var got any
	if err == nil {
		err = client.Decode(cachesidecar.Item{Value: value, Flags: flags}, &got)
	}
	if err != nil || !reflect.DeepEqual(got, nested(64)) {
		t.Errorf("64 levels: %v, %v", got, err)
	}
}
