package wire

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/tinylib/msgp/msgp"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// kept returns the messages in testdata/version1.json. The file has the messages as they were when hosts of
// several versions could first be in one cluster: README.md says when that is. It is not rewritten by make
// golden: messages are added to it, and none is changed.
func kept(t *testing.T) (list []golden) {
	t.Helper()
	b, err := os.ReadFile("testdata/version1.json")
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	testenv.Must(t, err)
	return list
}

// array returns the array of the message's frame.
func (g *golden) array(t *testing.T) []byte {
	t.Helper()
	frame, err := hex.DecodeString(g.Hex)
	testenv.Must(t, err)
	return frame[LengthSize:]
}

// TestVersion1 decodes the messages of earlier programs. Everything in them must still
// mean the same: this version may add, and may not change. The messages of the same name
// that this version encodes must have the same elements in the same places.
func TestVersion1(t *testing.T) {
	now := map[string]*golden{}
	for _, g := range messages() {
		now[g.Kind+g.Op+g.Name] = &g
	}
	for _, g := range kept(t) {
		if n := now[g.Kind+g.Op+g.Name]; n == nil {
			t.Errorf("%s %s %q is no golden message any more", g.Kind, g.Op, g.Name)
		} else if err := within(plain(t, g.array(t)), plain(t, n.bytes()[LengthSize:])); err != nil {
			t.Errorf("%s %s %q is encoded in another way: %v", g.Kind, g.Op, g.Name, err)
		}
		frame := g.array(t)
		again, err := g.recode(frame)
		if err != nil {
			t.Errorf("%s %s %q: %v", g.Kind, g.Op, g.Name, err)
			continue
		}
		if err := within(plain(t, frame), plain(t, again)); err != nil {
			t.Errorf("%s %s %q has changed: %v: give version 2 another message, and see README.md", g.Kind, g.Op, g.Name, err)
		}
	}
}

// TestVersion1Longer decodes the same messages with one more element at the end of each
// array that is a message or a part of one, as later versions may send them.
func TestVersion1Longer(t *testing.T) {
	tried := 0
	for _, g := range kept(t) {
		of := bodies[g.Kind+" "+g.Op]
		if g.Kind == "request" && !opsByName()[g.Op].Peer() || of == nil {
			continue // a request of an app with more elements is refused
		}
		raw, err := g.body(g.array(t))
		if err != nil || raw == nil {
			continue // TestVersion1 reports the error
		}
		want, got := reflect.New(reflect.TypeOf(of)), reflect.New(reflect.TypeOf(of))
		long, n := lengthen(schemaOf(reflect.TypeOf(of)), nil, raw)
		tried += n
		if err := UnmarshalBody(raw, want.Interface()); err != nil {
			t.Errorf("%s %q: %v", g.Op, g.Name, err)
		}
		if err := UnmarshalBody(long, got.Interface()); err != nil {
			t.Errorf("%s %q with %d elements more: %v", g.Op, g.Name, n, err)
		}
		if !reflect.DeepEqual(got.Interface(), want.Interface()) {
			t.Errorf("%s %q with %d elements more is\n%+v, want\n%+v", g.Op, g.Name, n, got.Elem(), want.Elem())
		}
	}
	if tried < 60 {
		t.Errorf("%d elements were added", tried)
	}
}

// lengthen appends a value to dst, in which each array that encodes a struct has one more
// element. It returns how many it has added.
func lengthen(s *schema, dst, b []byte) (long []byte, added int) {
	if s == nil || msgp.IsNil(b) || s.elem == nil && s.fields == nil || s.kind == reflect.Map || s.named != nil {
		rest, _ := skipValue(b, 0)
		return append(dst, b[:len(b)-len(rest)]...), 0
	}
	n, b, _ := msgp.ReadArrayHeaderBytes(b)
	more := uint32(0)
	if s.kind == reflect.Struct {
		more = max(uint32(len(s.fields)), n) - n + 1
	}
	dst = msgp.AppendArrayHeader(dst, n+more)
	for i := range n {
		rest, _ := skipValue(b, 0)
		var inner int
		of := s.elem
		if s.kind == reflect.Struct {
			of = nil
			if int(i) < len(s.fields) {
				of = s.fields[i].schema
			}
		}
		dst, inner = lengthen(of, dst, b[:len(b)-len(rest)])
		added, b = added+inner, rest
	}
	for i := range max(1, more) - 1 { // the fields that were added later
		switch f := s.fields[n+i]; {
		case f.kind == reflect.Bool:
			dst = msgp.AppendBool(dst, false)
		case f.kind == reflect.Uint64:
			dst = msgp.AppendUint64(dst, 0)
		default:
			dst = msgp.AppendNil(dst)
		}
	}
	if more > 0 {
		dst = append(dst, 0x81, 0xa1, 'x', 0x92, 1, 0xc0) // a map with an array
	}
	return dst, added + int(more)
}

// recode decodes a message and encodes it again.
func (g *golden) recode(frame []byte) ([]byte, error) {
	var out []byte
	if g.Kind == "request" {
		var r Request
		if e := DecodeRequest(frame, &r); e != nil {
			return nil, e
		}
		if r.Body != nil {
			v, err := g.value(r.Body)
			if err != nil {
				return nil, err
			}
			r.Body = body(v)
		}
		out = AppendRequest(nil, &r)
	} else {
		var r Reply
		if err := DecodeReply(opsByName()[g.Op], frame, &r); err != nil {
			return nil, err
		}
		if r.Body != nil && !placeholder(g) {
			v, err := g.value(r.Body)
			if err != nil {
				return nil, err
			}
			r.Body = body(v)
		}
		out = AppendReply(nil, opsByName()[g.Op], &r)
	}
	return out[LengthSize:], nil
}

// body returns the structured body of a message, or nil.
func (g *golden) body(frame []byte) ([]byte, error) {
	if g.Kind == "request" {
		var r Request
		if e := DecodeRequest(frame, &r); e != nil {
			return nil, e
		}
		return r.Body, nil
	}
	var r Reply
	err := DecodeReply(opsByName()[g.Op], frame, &r)
	return r.Body, err
}

// value decodes a body.
func (g *golden) value(raw []byte) (any, error) {
	of := bodies[g.Kind+" "+g.Op]
	if of == nil {
		return nil, fmt.Errorf("no type for the body of %s %s", g.Kind, g.Op)
	}
	v := reflect.New(reflect.TypeOf(of)).Interface()
	return v, UnmarshalBody(raw, v)
}

// placeholder reports whether the body of a golden message is not the real one.
func placeholder(g *golden) bool { return g.Op == "STATS" && g.Kind == "answer" }

// within returns an error if a message lacks something that an earlier version of it has.
// It may have more: elements at the end of arrays, and fields of maps.
func within(earlier, now any) error {
	switch was := earlier.(type) {
	case []any:
		is, ok := now.([]any)
		if !ok || len(is) < len(was) {
			return fmt.Errorf("%v is %v", earlier, now)
		}
		for i := range was {
			if err := within(was[i], is[i]); err != nil {
				return fmt.Errorf("element %d: %w", i, err)
			}
		}
		return nil
	case map[string]any:
		is, ok := now.(map[string]any)
		for k, v := range was {
			if err := within(v, is[k]); !ok || err != nil {
				return fmt.Errorf("%s: %v is %v (%w)", k, v, is[k], err)
			}
		}
		return nil
	}
	if !reflect.DeepEqual(earlier, now) {
		return fmt.Errorf("%v is %v", earlier, now)
	}
	return nil
}

// TestLater checks that a field that was added later may be missing, and is zero then, and
// that a field before it may not.
func TestLater(t *testing.T) {
	type part struct {
		Name string
		Size int64 `wire:"later"`
	}
	type message struct {
		Head  uint64
		Parts []part
		Named map[string]part
		Text  string `wire:"later"`
		Bytes []byte `wire:"later"`
		Flag  bool   `wire:"later"`
		Part  part   `wire:"later"`
	}
	short := []byte{0x93, 5, 0x92, 0x91, 0xa1, 'a', 0x92, 0xa1, 'b', 7, 0x81, 0xa1, 'k', 0x91, 0xa1, 'c'}
	want := message{Head: 5, Parts: []part{{Name: "a"}, {Name: "b", Size: 7}}, Named: map[string]part{"k": {Name: "c"}}}
	got := message{Text: "old", Flag: true, Part: part{Name: "old"}}
	if err := UnmarshalBody(short, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if err := UnmarshalBody([]byte{0x92, 5, 0x90}, &got); err == nil || !strings.Contains(err.Error(), "an array of 2 elements, want 3") {
		t.Errorf("a field that was there from the first: %v", err)
	}
}
