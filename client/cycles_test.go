package client_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
)

type linked struct {
	Name   string
	Next   *linked
	parent *linked // not encoded
	Up     *linked `msgpack:"-"`
}

// chained encodes itself.
type chained struct{ next *chained }

func (c *chained) EncodeMsgpack(e *msgpack.Encoder) error {
	if err := e.EncodeArrayLen(1); err != nil {
		return err
	}
	return e.Encode(c.next)
}

type (
	pointer  *pointer
	embedded struct{ *embedded }
	listed   []listed
	boxed    struct{ Box any }
	shape    interface{}
	inside   struct {
		shape
		N int
	}
)

// nested returns lists within each other.
func nested(levels int) (v any) {
	for v = "x"; levels > 0; levels-- {
		v = []any{v}
	}
	return v
}

// TestCycles encodes values that contain themselves, and those that are deeper or larger than all languages read.
func TestCycles(t *testing.T) {
	list := []any{1, nil}
	list[1] = list
	object := map[string]any{"a": 1}
	object["b"] = []any{object}
	ring := &linked{Name: "a"}
	ring.Next = &linked{Name: "b", Next: ring}
	chain := &chained{}
	chain.next = chain
	var itself any
	itself = &itself
	var p pointer
	p = &p
	tree := listed{nil}
	tree[0] = tree
	box := &boxed{}
	box.Box = box
	within := &inside{}
	within.shape = within
	bomb := any([]any{})
	for range 40 {
		bomb = []any{bomb, bomb}
	}
	many := msgpack.RawMessage("\xdd\x00\x10\x00\x01" + strings.Repeat("\xc0", 1<<20+1))
	keyed := map[any]any{}
	keyed[[1]any{&keyed}] = 1
	longPath := map[string]any{}
	longPath[strings.Repeat("€", 5000)] = longPath
	for _, c := range []struct {
		name  string
		value any
		want  string
	}{
		{"a list", list, "the value[1][1][1]"}, {"a map", object, `the value["b"][0]["b"][0]`},
		{"structs", ring, "the value.Next.Next"}, {"structs in a list", []*linked{nil, ring}, "the value[1].Next.Next"},
		{"a named list", tree, "the value[0][0]"}, {"a box", box, "the value.Box.Box"}, {"an interface", within, "the value.shape"},
		{"what encodes itself", chain, "deeper than 64 levels"}, {"and is in a list", []any{chain}, "deeper than 64"},
		{"a pointer to itself", itself, "the value is a pointer that leads to itself"},
		{"and in a list", []any{1, itself}, "the value[1] is a pointer that leads to itself"},
		{"a type to itself", p, "is of type client_test.pointer, which contains itself"},
		{"a field of it", struct{ P pointer }{}, "the value.P is of type"},
		{"a type that embeds itself", embedded{}, "which contains itself"}, {"a key", keyed, "is deeper than 64 levels"},
		{"a long path", longPath, "…"}, {"65 levels", nested(65), "is deeper than 64 levels"},
		{"more lists than atoms", bomb, "more than 1048576 elements"},
		{"more elements", many, "more than 1048576 elements"}, {"and in a list", []any{many}, "more than 1048576"},
	} {
		_, _, err := client.Encode(c.value)
		if !errors.Is(err, cachesidecar.ErrEncoding) || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 600 {
			t.Errorf("%s: %.1000v, want %q", c.name, err, c.want)
		}
	}
}

// TestNoCycles encodes values that look as if they contained themselves, and the deepest.
func TestNoCycles(t *testing.T) {
	one := &linked{Name: "a"}
	one.Up, one.parent = one, one
	shared := []any{"x"}
	pointers := any(1)
	for range 30 {
		v := pointers
		pointers = &v
	}
	var deep any
	if err := json.Unmarshal([]byte(strings.Repeat(`{"a":[`, 32)+strings.Repeat("]}", 32)), &deep); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ value, want any }{
		{one, map[string]any{"Name": "a", "Next": nil}},
		{[]any{shared, shared}, []any{[]any{"x"}, []any{"x"}}},
		{[]any{pointers}, []any{int64(1)}}, {(*linked)(nil), nil}, {(*any)(nil), nil},
		{inside{N: 1}, map[string]any{"shape": nil, "N": int64(1)}},
		{[]*time.Time{nil}, []any{nil}}, {nested(64), nested(64)}, {deep, deep}, {listed{nil, {}}, []any{nil, []any{}}},
	} {
		value, flags, err := client.Encode(c.value)
		var got any
		if err == nil {
			err = client.Decode(cachesidecar.Item{Value: value, Flags: flags}, &got)
		}
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v is %v, %v", c.want, got, err)
		}
	}
}
