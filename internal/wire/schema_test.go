package wire

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// bodies has the Go type of each structured body of requests and answers.
var bodies = map[string]any{
	"request PEER_HELLO": PeerHello{}, "request POLL": Poll{}, "request ACQUIRE": Acquire{}, "request AUTH": Auth{},
	"request PULL": Pull{}, "request FETCH": Fetch{}, "request GOODBYE": Goodbye{}, "request FOLLOW": Follow{},
	"request SETTINGS": AskSettings{}, "answer SETTINGS": Settings{},
	"request PROBE": Probe{}, "request APPLIED": Applied{}, "answer APPLIED": AppliedBy{},

	"answer PEER_HELLO": PeerHello{}, "answer POLL": Poll{}, "answer ACQUIRE": Acquired{}, "answer AUTH": Authorized{},
	"answer PULL": Pulled{}, "answer FETCH": Fetched{}, "answer FOLLOW": Followed{}, "answer PROBE": Probed{},
	"answer HELLO": Welcome{}, "answer STATS": cachesidecar.Stats{}, "answer MEMBERS": []cachesidecar.Member{}, "answer RING": cachesidecar.Place{},
	"request NOTE": Note{}, "answer NOTE": Noted{},
	"answer WATCH": Watched{}, "answer VERIFY": cachesidecar.Verified{}, "answer HOT": Hot{}, "answer SLOW": Slow{}, "answer KEYS": KeysPage{}, "answer RELOAD": cachesidecar.Changes{},
	"answer DRAIN": cachesidecar.Drained{}, "answer SHARED": Shared{},
}

// decode decodes the array of a golden message, and its body, if it has one.
func (g *golden) decode(b []byte) error {
	var raw []byte
	if g.request != nil {
		var r Request
		if e := DecodeRequest(b, &r); e != nil {
			return e
		}
		raw = r.Body
	} else {
		var r Reply
		if err := DecodeReply(opsByName()[g.Op], b, &r); err != nil {
			return err
		}
		raw = r.Body
	}
	if raw == nil {
		return nil
	}
	return UnmarshalBody(raw, reflect.New(reflect.TypeOf(bodies[g.Kind+" "+g.Op])).Interface())
}

// texts calls f with the position of each text in a message: the index of its head and
// the index after its end.
func texts(b []byte, bins bool, f func(from, to int)) {
	for at := 0; at < len(b); {
		head, payload, _, _ := readHead(b[at:])
		to := at + head + int(payload)
		switch c := b[at]; {
		case c >= 0xa0 && c <= 0xbf, c >= 0xd9 && c <= 0xdb, bins && c >= 0xc4 && c <= 0xc6:
			f(at, to)
		}
		at = to
	}
}

// TestNilIsNoText replaces each text of each message by nil. The message must be
// refused, unless PROTOCOL.md gives the field a default.
func TestNilIsNoText(t *testing.T) {
	stats := golden{Name: "stats", Op: "STATS", Kind: "answer", reply: &Reply{ID: 7, Body: body(cachesidecar.Stats{
		Cluster:    cachesidecar.ClusterState{Invalidations: cachesidecar.InvalidationStats{Leases: []cachesidecar.LeaseStats{{Node: "host-b"}}}},
		Namespaces: []cachesidecar.NamespaceStats{{}},
	})}}
	relay := Relay{From: kv.Process{Node: "host-a"}, Events: testEvents()}
	refused := 0
	for _, g := range append(messages(), stats) {
		if g.Op == "STATS" && g.Kind == "answer" && g.reply != stats.reply {
			continue // its body is a placeholder
		}
		frame := g.bytes()[LengthSize:]
		if err := g.decode(frame); err != nil {
			t.Errorf("%s %q: %v", g.Op, g.Name, err)
		}
		structured := g.request != nil && g.request.Body != nil || g.reply != nil && g.reply.Body != nil
		texts(frame, !structured, func(from, to int) {
			b := append(append(bytes.Clone(frame[:from]), 0xc0), frame[to:]...)
			err := g.decode(b)
			was := string(frame[from:to])
			if err != nil {
				refused++
			}
			if g.hasDefault(was) != (err == nil) {
				t.Errorf("%s %s %q with nil for %q: %v", g.Kind, g.Op, g.Name, was, err)
			}
		})
	}
	b := body(relay)
	texts(b, false, func(from, to int) {
		refused++
		if UnmarshalBody(append(append(bytes.Clone(b[:from]), 0xc0), b[to:]...), &Relay{}) == nil {
			t.Errorf("a relay with nil for %q is accepted", b[from:to])
		}
	})
	if refused < 250 {
		t.Errorf("%d texts were tried", refused)
	}
}

// hasDefault reports whether a text of a message may be nil: the namespace of a request,
// and the optional elements of HELLO.
func (g *golden) hasDefault(encoded string) bool {
	switch {
	case g.request == nil:
		return false
	case g.request.Op == OpHello:
		return strings.Contains("billing s3cret users", encoded[1:])
	case g.request.Op == OpKeys: // prefix and cursor may be left out
		return true
	}
	return g.request.Body == nil && encoded == "\xa5users"
}

// TestArraysAreWhole checks that an array that encodes a struct must have all its
// elements, and may have more.
func TestArraysAreWhole(t *testing.T) {
	type message struct {
		Ballot     kv.Ballot
		Batch      uint64
		Partitions []byte
	}
	whole := body(message{Ballot: kv.Ballot{Clock: 1, Process: kv.Process{Node: "host-a", Epoch: 2}}, Batch: 3})
	for _, tc := range []struct {
		name string
		body []byte
		want string
	}{
		{"all", whole, ""},
		{"nil", []byte{0xc0}, "array"},
		{"empty", []byte{0x90}, "an array of 0 elements, want 3"},
		{"short", append([]byte{0x92}, whole[1:len(whole)-1]...), "an array of 2 elements, want 3"},
		{"long", append(append([]byte{0x95}, whole[1:]...), 0xc0, 1), ""},
		{"long and cut short", append([]byte{0x94}, whole[1:]...), "short"},
		{"a map", []byte{0x80}, "array"},
		{"a nil within", []byte{0x93, 0xc0, 3, 0xc0}, "array"},
		{"an empty one within", []byte{0x93, 0x90, 3, 0xc0}, "an array of 0 elements, want 2"},
		{"bytes for a text", []byte{0x93, 0x92, 1, 0x92, 0xc4, 1, 'a', 2, 3, 0xc0}, ""},
		{"a number for a text", []byte{0x93, 0x92, 1, 0x92, 5, 2, 3, 0xc0}, "\"str\""},
		{"nil for a number", []byte{0x93, 0x92, 1, 0x92, 0xa1, 'a', 2, 0xc0, 0xc0}, "nil"},
		{"a negative number", []byte{0x93, 0x92, 1, 0x92, 0xa1, 'a', 2, 0xff, 0xc0}, "unsigned"},
	} {
		err := UnmarshalBody(tc.body, &message{})
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}

// kinds has a value of each type of bodies. The fuzz targets take them by their places, so that another one
// comes last.
var kinds = []any{
	PeerHello{}, Poll{}, Acquire{}, Acquired{}, Auth{}, Authorized{}, Pull{}, Pulled{}, Fetch{}, Fetched{}, Goodbye{}, Follow{},
	Followed{}, Relay{}, Probe{}, Probed{}, Applied{}, AppliedBy{}, AskSettings{}, Settings{}, Hello{}, Welcome{}, Watched{},
	[]cachesidecar.Member{}, cachesidecar.Place{}, cachesidecar.Stats{}, cachesidecar.ClusterStats{}, cachesidecar.Verified{},
	Note{}, Noted{}, Hot{}, Slow{}, KeysPage{}, cachesidecar.Changes{}, cachesidecar.Drained{}, Shared{},
}

// addBodies adds the bodies of the golden messages to the seeds of a fuzz target.
func addBodies(f *testing.F) {
	for _, g := range messages() {
		if of := bodies[g.Kind+" "+g.Op]; of != nil {
			for i, kind := range kinds {
				if reflect.TypeOf(kind) == reflect.TypeOf(of) {
					if g.request != nil {
						f.Add(uint8(i), g.request.Body)
					} else {
						f.Add(uint8(i), g.reply.Body)
					}
				}
			}
		}
	}
}

// FuzzBodies checks that an accepted structured body survives a round trip.
func FuzzBodies(f *testing.F) {
	addBodies(f)
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		_, _, _ = PeerVersions(b)
		of := reflect.TypeOf(kinds[int(kind)%len(kinds)])
		v, again := reflect.New(of), reflect.New(of)
		if UnmarshalBody(b, v.Interface()) != nil {
			return
		}
		first := body(v.Interface())
		if err := UnmarshalBody(first, again.Interface()); err != nil {
			t.Fatalf("%+v encodes to %x: %v", v.Elem(), first, err)
		}
		if second := body(again.Interface()); !bytes.Equal(first, second) {
			t.Fatalf("%+v comes back as %+v", v.Elem(), again.Elem())
		}
	})
}

// TestNumbersFit checks that a number that does not fit its field is refused, not
// truncated.
func TestNumbersFit(t *testing.T) {
	for _, tc := range []struct {
		name string
		body []byte
		into any
		want string
	}{
		{"uint32", []byte{0x93, 1, 0xce, 0xff, 0xff, 0xff, 0xff, 0xc3}, &Follow{}, ""},
		{"above uint32", []byte{0x93, 1, 0xcf, 0, 0, 0, 1, 0, 0, 0, 0, 0xc3}, &Follow{}, "a number that uint32 cannot hold"},
		{"above uint8", []byte{0x93, 0xcd, 1, 0, 0xc0, 1}, &Probed{}, "a number that uint8 cannot hold"},
		{"above int64", []byte{0x92, 0xcf, 0x80, 0, 0, 0, 0, 0, 0, 0, 0}, &[]int64{}, "overflows"},
		{"a number for a bool", []byte{0x93, 1, 1, 1}, &Follow{}, "bool"},
		{"a float for a number", []byte{0x93, 0xcb, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xc3}, &Follow{}, "float64"},
	} {
		err := UnmarshalBody(tc.body, tc.into)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}
