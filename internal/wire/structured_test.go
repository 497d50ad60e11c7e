package wire

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestKindsAreComplete checks that the lists of types have each other's, and that each has a schema.
func TestKindsAreComplete(t *testing.T) {
	for of, body := range bodies {
		if !slices.ContainsFunc(kinds, func(k any) bool { return reflect.TypeOf(k) == reflect.TypeOf(body) }) {
			t.Errorf("%s: %T is not among the kinds", of, body)
		}
	}
	for _, k := range kinds {
		schemaOf(reflect.TypeOf(k))
	}
}

// TestBodyWithoutSchema checks that a type that bodies cannot have is refused whatever its value is.
func TestBodyWithoutSchema(t *testing.T) {
	for _, v := range []any{
		struct{ A [2]byte }{}, struct{ A []float32 }{}, struct{ A map[int]string }{}, struct{ A []any }{},
		struct{ A *func() }{}, struct{ A time.Time }{}, struct{}{}, struct{ a int }{},
		struct {
			A int `json:"a"`
			B int
		}{}, // a name for one of two
		struct {
			A int `json:"a"`
			B int `msgpack:"a"`
		}{}, // one name for two
		struct {
			A int `json:"-"`
		}{},
		struct {
			A int `json:",omitempty"`
		}{},
		struct {
			A int `json:"a,string"`
		}{},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%T has a schema", v)
				}
			}()
			schemaOf(reflect.TypeOf(v))
		}()
	}
}

// TestBodyErrors checks that an error names the field, and leaves nothing of the body.
func TestBodyErrors(t *testing.T) {
	promise := body(Auth{Ownerships: []Promise{{}, {Ballot: kv.Ballot{Clock: 7}}}})
	at := bytes.LastIndexByte(promise, 0xa0) // the name of its process
	promise[at] = 0xc0
	nodes := strings.Repeat("\x81\xaanamespaces\x94"+strings.Repeat("\x81\xa1x\xa7unknown", 4), 100)
	for _, tc := range []struct {
		body []byte
		into any
		want string
	}{
		{promise, &Auth{Clock: 5}, "msgpack: Ownerships: Ballot: Process: Node: nil where a text must be"},
		{[]byte("\x82\xa1v\x91\x01\xa6client\x05"), &Hello{Token: "old"}, "msgpack: client: "},
		{[]byte("\x81\xa1v\xdd\xff\xff\xff\xff"), &Hello{}, "more elements"},
		{append([]byte("\x81\xaanamespaces\xdc\x10\x00"), bytes.Repeat([]byte{0x80}, 1<<12)...), &cachesidecar.Stats{},
			"namespaces: what it holds takes more than 64 times its bytes"},
		{[]byte("\x81\xa5nodes\xdc\x00\x64" + nodes), &cachesidecar.ClusterStats{},
			"what it holds takes more than 64 times its bytes"}, // and no list of it does
		{[]byte("\x93\x05"), &Follow{Applied: 1}, "more elements"},
	} {
		err := UnmarshalBody(tc.body, tc.into)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%x: %v, want %q", tc.body, err, tc.want)
		}
		if !reflect.ValueOf(tc.into).Elem().IsZero() {
			t.Errorf("%x: %+v is left", tc.body, tc.into)
		}
	}
}

// TestKeysTwice checks that of two values of one key the later one counts.
func TestKeysTwice(t *testing.T) {
	for _, tc := range []struct {
		body string
		want Hello
	}{
		{"\x82\xa1v\x92\x01\x02\xa1v\x91\x03", Hello{Versions: []int{3}}},
		{"\x82\xa6client\xa1a\xa6client\xc0", Hello{}},
		{"\x82\xa6client\xc0\xa6client\xa1a", Hello{Client: "a"}},
	} {
		var got Hello
		if err := UnmarshalBody([]byte(tc.body), &got); err != nil || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%q is %+v, %v, want %+v", tc.body, got, err, tc.want)
		}
	}
}

// TestNothingsFit checks that lists of what is shortest are not refused.
func TestNothingsFit(t *testing.T) {
	for _, v := range []any{
		&Authorized{Acknowledged: make([][]byte, 1000)}, &Settings{Names: make([]string, 1000), Of: make([]SettingsOf, 1000)},
		&Pulled{Entries: make([]Entry, 1000), Barriers: make([]Barriers, 1000)}, &Poll{Ballots: make([]Promise, 1000)},
		&cachesidecar.Stats{Namespaces: make([]cachesidecar.NamespaceStats, 100)}, &cachesidecar.ClusterStats{Nodes: make([]cachesidecar.Stats, 100)},
		&Hot{Keys: make([]HotKey, 100)},
	} {
		if err := UnmarshalBody(body(v), reflect.New(reflect.TypeOf(v).Elem()).Interface()); err != nil {
			t.Errorf("%T: %v", v, err)
		}
	}
}

// TestBodyIsCopied checks that nothing that was decoded changes with the bytes that it came from.
func TestBodyIsCopied(t *testing.T) {
	for _, g := range messages() {
		of := bodies[g.Kind+" "+g.Op]
		raw, err := g.body(g.bytes()[LengthSize:])
		testenv.Must(t, err)
		if of == nil || raw == nil || placeholder(&g) {
			continue
		}
		v, raw := reflect.New(reflect.TypeOf(of)), bytes.Clone(raw)
		testenv.Must(t, UnmarshalBody(raw, v.Interface()))
		was := body(v.Interface())
		for i := range raw {
			raw[i] ^= 0xff
		}
		if !bytes.Equal(body(v.Interface()), was) {
			t.Errorf("%s %s %q changes with its frame", g.Kind, g.Op, g.Name)
		}
	}
}

// TestBodyAllocations counts what the bodies between hosts allocate: the bytes that are encoded, and what was
// decoded.
func TestBodyAllocations(t *testing.T) {
	followed := &Followed{After: 1 << 40, To: 1<<40 + 1, WallMS: 1 << 40, Clock: 1 << 60}
	followed.Events.Add(EventChanged, 1<<63, 1<<60, nil)
	for _, tc := range []struct {
		from, into any
		decode     float64
	}{
		{&Follow{Applied: 1 << 40, WaitMS: 1000}, &Follow{}, 0},
		{followed, &Followed{}, 1}, // the events
		{&Poll{State: 1, WallMS: 1 << 40}, &Poll{}, 0},
	} {
		b := body(tc.from)
		name := fmt.Sprintf("%T", tc.from)
		testenv.Allocates(t, "decoding "+name, tc.decode, 200, func() { testenv.Must(t, UnmarshalBody(b, tc.into)) })
		testenv.Allocates(t, "encoding "+name, 1, 200, func() { MarshalBody(tc.from) })
	}
}

// FuzzReferenceBodies checks that a body means the same to vmihailenco/msgpack, if that can read it, and has
// the same bytes.
func FuzzReferenceBodies(f *testing.F) {
	addBodies(f)
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		of := reflect.TypeOf(kinds[int(kind)%len(kinds)])
		got, want := reflect.New(of), reflect.New(of)
		if UnmarshalBody(b, got.Interface()) != nil {
			return
		}
		encoded := body(got.Interface())
		d := msgpack.NewDecoder(bytes.NewReader(encoded))
		d.SetCustomStructTag("json")
		testenv.Must(t, d.Decode(want.Interface()))
		if !reflect.DeepEqual(got.Interface(), want.Interface()) {
			t.Fatalf("%x is %+v, to the reference codec %+v", encoded, got.Elem(), want.Elem())
		}
		d.Reset(bytes.NewReader(b))
		d.SetCustomStructTag("json")
		if want.Elem().SetZero(); d.Decode(want.Interface()) == nil && !reflect.DeepEqual(got.Interface(), want.Interface()) {
			t.Fatalf("%x is %+v, to the reference codec %+v", b, got.Elem(), want.Elem())
		}
		var buf bytes.Buffer
		e := msgpack.NewEncoder(&buf)
		e.UseCompactInts(true)
		e.SetSortMapKeys(true)
		e.SetCustomStructTag("json")
		e.UseArrayEncodedStructs(schemaOf(of).named == nil && of.Kind() == reflect.Struct)
		testenv.Must(t, e.Encode(got.Interface()))
		if of != reflect.TypeFor[Watched]() && !bytes.Equal(buf.Bytes(), encoded) {
			t.Fatalf("%+v is %x, by the reference codec %x", got.Elem(), encoded, buf.Bytes())
		}
	})
}
