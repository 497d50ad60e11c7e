package main

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// pack encodes a request element by element, valid or not.
func pack(t testing.TB, elements ...any) []byte {
	t.Helper()
	b, err := msgpack.Marshal(elements)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestFrameLengths checks that a frame with an impossible length is refused at once: its
// body is not read, and no memory is taken for it.
func TestFrameLengths(t *testing.T) {
	p := runSidecar(t)
	check := p.bystander()
	watcher := p.dial()
	before := watcher.stats()
	limit := 8<<20 + wire.FrameSlack
	for _, tc := range []struct {
		name string
		sent []byte
		want wire.Status // of an answer; OK: there is none
	}{
		{"4 GiB", []byte{0xff, 0xff, 0xff, 0xff}, wire.OK},
		{"4 GiB, with more", append([]byte{0xff, 0xff, 0xff, 0xff}, bytes.Repeat([]byte{0xc0}, 1000)...), wire.OK},
		{"2 GiB", []byte{0x80, 0, 0, 0}, wire.OK},
		{"nothing", []byte{0, 0, 0, 0}, wire.OK},
		{"a byte too long", frame(make([]byte, limit+1))[:4], wire.OK},
		{"a byte too long, with an id", append(frame(make([]byte, limit+1))[:4], 0x98, 7, byte(wire.OpSet)), wire.TooLarge},
	} {
		for _, hello := range []bool{false, true} {
			c := p.connect()
			if hello {
				c.must(helloRequest())
			}
			c.write(tc.sent)
			answers := c.rest()
			switch {
			case tc.want == wire.OK && len(answers) > 0:
				t.Errorf("%s: answered with %+v", tc.name, answers)
			case tc.want != wire.OK && (len(answers) != 1 || answers[0].ID != 7 || answers[0].Status != tc.want || !strings.Contains(string(answers[0].Message), fmt.Sprint(limit))):
				t.Errorf("%s: answered with %+v, want %v and the limit of %d", tc.name, answers, tc.want, limit)
			}
		}
	}
	check()
	after := watcher.stats()
	if got := after.Connections.BadFrames - before.Connections.BadFrames; got != 12 {
		t.Errorf("%d bad frames are counted, want 12", got)
	}
	if grown := after.Process.ResidentBytes - before.Process.ResidentBytes; grown > 64<<20 {
		t.Errorf("the process grew by %d bytes", grown)
	}
	// Ten per minute are logged, and log lines are written a moment later.
	p.terminate()
	if n := strings.Count(p.log.String(), "the frame's length is out of bounds"); n != 10 {
		t.Errorf("%d log lines, want 10", n)
	}
}

// TestTruncatedFrames checks that a connection that ends within a frame leaves nothing
// behind, wherever it ends.
func TestTruncatedFrames(t *testing.T) {
	testenv.Takes(t, time.Second)
	p := runSidecar(t)
	check := p.bystander()
	watcher := p.dial()
	hello := wire.AppendRequest(nil, &wire.Request{ID: 1, Op: wire.OpHello, Hello: wire.Hello{Versions: []int{wire.Version}, Client: "cut"}})
	set := wire.AppendRequest(nil, &wire.Request{ID: 2, Op: wire.OpSet, Key: []byte("cut"), Value: []byte(strings.Repeat("v", 300)), TTLMS: 5000})
	both := append(bytes.Clone(hello), set...)
	for n := range len(both) {
		for _, half := range []bool{false, true} { // close all of it, or only our side
			c := p.connect()
			c.write(both[:n])
			if !half {
				c.close()
				continue
			}
			if err := c.nc.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			want := 0
			if n >= len(hello) {
				want = 1
			}
			if answers := c.rest(); len(answers) != want {
				t.Errorf("%d of %d bytes: %d answers, want %d", n, len(both), len(answers), want)
			}
			c.close()
		}
	}
	p.onlyOpen(watcher, 2)
	if r := watcher.call(getRequest("cut")); r.Status != wire.Miss {
		t.Errorf("a SET that was never whole stored something: %v", r.Status)
	}
	check()
	// Whole frames are served even if the connection ends after them.
	c := p.connect()
	c.write(both)
	if err := c.nc.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if answers := c.rest(); len(answers) != 2 || answers[1].Status != wire.OK {
		t.Errorf("two whole frames: %+v", answers)
	}
}

// onlyOpen waits until n connections are left.
func (p *process) onlyOpen(watcher *conn, n int64) {
	p.t.Helper()
	testenv.Succeeds(p.t, fmt.Sprintf("%d connections to be left", n), func() error {
		if st := watcher.stats(); st.Connections.Open != n || st.Connections.BufferBytes != 0 {
			return fmt.Errorf("%d are open, %d bytes of buffers are held", st.Connections.Open, st.Connections.BufferBytes)
		}
		return nil
	})
}

// TestLengthyNestedBombs checks that frames of 8 MiB that nest as deep as they are long, or
// announce four billion elements, do no harm.
func TestLengthyNestedBombs(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	p := runSidecar(t)
	check := p.bystander()
	watcher := p.dial()
	before := watcher.stats().Process
	const size = 8 << 20
	deep := func(b byte) []byte { return bytes.Repeat([]byte{b}, size) }
	huge := append([]byte{0xdd, 0xff, 0xff, 0xff, 0xff}, make([]byte, size)...)
	hugeMap := append([]byte{0xdf, 0xff, 0xff, 0xff, 0xff}, make([]byte, size)...)
	nested := bytes.Repeat([]byte{0xdd, 0xff, 0xff, 0xff, 0xff}, size/5)
	bombs := map[string][]byte{
		"0x91": deep(0x91), "0x81": deep(0x81), "0xdd": huge, "0xdf": hugeMap, "nested 0xdd": nested,
		"0x9f": deep(0x9f), "0x8f": deep(0x8f), "0xc1": deep(0xc1), "0xc6": append([]byte{0xc6, 0xff, 0xff, 0xff, 0xff}, make([]byte, size)...),
	}
	in := func(head []byte, bomb []byte) []byte { return append(bytes.Clone(head), bomb...) }
	for name, bomb := range bombs {
		for _, tc := range []struct {
			where string
			body  []byte
			id    int // below zero: none
		}{
			{"the frame", bomb, map[bool]int{false: -1, true: 0}[name == "0xdd"]},
			{"an array's id", in([]byte{0x93}, bomb), -1},
			{"HELLO", in([]byte{0x94, 1, byte(wire.OpHello), 0}, bomb), 1},
			{"HELLO's versions", in([]byte{0x94, 1, byte(wire.OpHello), 0, 0x81, 0xa1, 'v'}, bomb), 1},
			{"SET's key", in([]byte{0x96, 1, byte(wire.OpSet), 0, 0xc0}, bomb), 1},
			{"MGET's keys", in([]byte{0x95, 1, byte(wire.OpMGet), 0, 0xc0}, bomb), 1},
			{"MGET's one key", in([]byte{0x95, 1, byte(wire.OpMGet), 0, 0xc0, 0x91}, bomb), 1},
		} {
			c := p.connect()
			c.write(frame(tc.body))
			if tc.id < 0 {
				if answers := c.rest(); len(answers) > 0 {
					t.Errorf("%s as %s: answered with %+v", name, tc.where, answers)
				}
				continue
			}
			r, err := c.read(wire.OpPing)
			if err != nil || r.ID != uint64(tc.id) || r.Status != wire.BadRequest && tc.id > 0 || !r.Status.IsError() {
				t.Errorf("%s in %s: answer %d, %v, %v, want BAD_REQUEST to %d", name, tc.where, r.ID, r.Status, err, tc.id)
				continue
			}
			// The connection stays usable.
			c.id = 1
			c.must(helloRequest())
			c.must(ping())
			c.close()
		}
	}
	check()
	after := watcher.stats().Process
	if grown := after.ResidentBytes - before.ResidentBytes; grown > 200<<20 {
		t.Errorf("the process grew by %d bytes", grown)
	}
	p.onlyOpen(watcher, 1)
}

// TestWrongRequests checks that an invalid request is answered with the reason, and that
// the next one is served.
func TestWrongRequests(t *testing.T) {
	p := runSidecar(t)
	check := p.bystander()
	long := strings.Repeat("k", 1025)
	const hello, get, mget, set, del, touch, incr, flush, ring, watch, verify = wire.OpHello, wire.OpGet, wire.OpMGet, wire.OpSet, wire.OpDelete, wire.OpTouch, wire.OpIncr, wire.OpFlush, wire.OpRing, wire.OpWatch, wire.OpVerify
	const year = 365 * 24 * 3600 * 1000
	for _, tc := range []struct {
		name   string
		body   []byte
		status wire.Status
		want   string
	}{
		{"unknown op", pack(t, 1, 31), wire.Unsupported, "op 31 is unknown; ops 1 to "},
		{"op 0", pack(t, 1, 0), wire.Unsupported, "op 0 is unknown"},
		{"op of 64 bits", pack(t, 1, uint64(math.MaxUint64)), wire.Unsupported, "op 18446744073709551615 is unknown"},
		{"no op", pack(t, 1), wire.BadRequest, "op is missing"},
		{"nil op", pack(t, 1, nil), wire.BadRequest, "op is missing"},
		{"text op", pack(t, 1, "GET"), wire.BadRequest, "op: want a number"},
		{"negative op", pack(t, 1, -3), wire.BadRequest, "op: want a number"},
		{"text timeout", pack(t, 1, get, "soon", nil, "k"), wire.BadRequest, "timeout_ms: want a number"},
		{"timeout above an hour", pack(t, 1, get, 3_600_001, nil, "k"), wire.BadRequest, "timeout_ms: want a number from 0 to 3600000"},
		{"negative timeout", pack(t, 1, get, -1, nil, "k"), wire.BadRequest, "timeout_ms"},
		{"no key", pack(t, 1, get, 0, nil), wire.BadRequest, "key is missing"},
		{"nil key", pack(t, 1, get, 0, nil, nil), wire.BadRequest, "key is missing"},
		{"number for a key", pack(t, 1, get, 0, nil, 7), wire.BadRequest, "key: want bin or str"},
		{"array for a key", pack(t, 1, get, 0, nil, []string{"k"}), wire.BadRequest, "key: want bin or str"},
		{"number for a namespace", pack(t, 1, get, 0, 7, "k"), wire.BadRequest, "ns: want bin or str"},
		{"too many elements", pack(t, 1, get, 0, nil, "k", 0, 0), wire.BadRequest, "GET has 1 elements too many"},
		{"far too many elements", pack(t, append([]any{1, get, 0, nil, "k", 0}, make([]any, 5000)...)...), wire.BadRequest, "GET has 5000 elements too many"},
		{"bytes behind the array", append(pack(t, 1, get, 0, nil, "k"), 0xc0), wire.BadRequest, "1 bytes follow the array"},
		{"unknown option", pack(t, 1, get, 0, nil, "k", 1<<20), wire.BadRequest, "GET knows no option 0x100000"},
		{"another op's option", pack(t, 1, set, 0, nil, "k", "v", nil, 0, 0, 0, wire.Fresh), wire.BadRequest, "SET knows no option"},
		{"keys are no array", pack(t, 1, mget, 0, nil, "k"), wire.BadRequest, "keys: want an array of 1 to 1024 keys"},
		{"no keys", pack(t, 1, mget, 0, nil, []string{}), wire.BadRequest, "keys: want an array of 1 to 1024 keys"},
		{"too many keys", pack(t, 1, del, 0, nil, make([]string, 1025)), wire.BadRequest, "keys: want an array of 1 to 1024 keys"},
		{"nil among keys", pack(t, 1, mget, 0, nil, []any{"k", nil}), wire.BadRequest, "key is missing"},
		{"no value", pack(t, 1, set, 0, nil, "k"), wire.BadRequest, "value is missing"},
		{"number for a value", pack(t, 1, set, 0, nil, "k", 7), wire.BadRequest, "value: want bin or str"},
		{"negative TTL", pack(t, 1, set, 0, nil, "k", "v", -1), wire.BadRequest, "ttl_ms: want a number from 0 to 31536000000"},
		{"TTL above a year", pack(t, 1, set, 0, nil, "k", "v", year+1), wire.BadRequest, "ttl_ms: want a number from 0 to 31536000000"},
		{"TTL of 64 bits", pack(t, 1, set, 0, nil, "k", "v", uint64(math.MaxUint64)), wire.BadRequest, "ttl_ms"},
		{"fraction for a TTL", pack(t, 1, set, 0, nil, "k", "v", 1.5), wire.BadRequest, "ttl_ms: want a number"},
		{"TOUCH with a negative TTL", pack(t, 1, touch, 0, nil, "k", -1), wire.BadRequest, "ttl_ms"},
		{"INCR with a TTL above a year", pack(t, 1, incr, 0, nil, "k", 1, 0, year+1), wire.BadRequest, "ttl_ms"},
		{"flags of 33 bits", pack(t, 1, set, 0, nil, "k", "v", nil, 1<<32), wire.BadRequest, "flags: want a number from 0 to 4294967295"},
		{"unknown mode", pack(t, 1, set, 0, nil, "k", "v", nil, 0, 6), wire.BadRequest, "mode: want a number from 0 to 5"},
		{"delta beyond 64 bits", pack(t, 1, incr, 0, nil, "k", uint64(math.MaxUint64)), wire.BadRequest, "delta and initial: want signed 64-bit numbers"},
		{"text for a delta", pack(t, 1, incr, 0, nil, "k", "1"), wire.BadRequest, "delta: want a signed 64-bit number"},
		{"empty key", pack(t, 1, get, 0, nil, ""), wire.BadRequest, "the key has 0 bytes: a key has 1 to 1024"},
		{"long key", pack(t, 1, get, 0, nil, long), wire.BadRequest, "the key has 1025 bytes: a key has 1 to 1024"},
		{"SET of an empty key", pack(t, 1, set, 0, nil, "", "v"), wire.BadRequest, "the key has 0 bytes"},
		{"SET of a long key", pack(t, 1, set, 0, nil, long, "v"), wire.BadRequest, "the key has 1025 bytes"},
		{"TOUCH of a long key", pack(t, 1, touch, 0, nil, long), wire.BadRequest, "the key has 1025 bytes"},
		{"INCR of an empty key", pack(t, 1, incr, 0, nil, "", 1), wire.BadRequest, "the key has 0 bytes"},
		{"RING of a long key", pack(t, 1, ring, 0, nil, long), wire.BadRequest, "the key has 1025 bytes"},
		{"bad namespace", pack(t, 1, set, 0, "Ns", "k", "v"), wire.BadRequest, `namespace "Ns": a name is 1 to 64 of`},
		{"empty namespace", pack(t, 1, get, 0, "", "k"), wire.BadRequest, `namespace "": a name is 1 to 64 of`},
		{"long namespace", pack(t, 1, flush, 0, strings.Repeat("n", 65)), wire.BadRequest, "a name is 1 to 64 of"},
		{"WATCH of a bad namespace", pack(t, 1, watch, 0, "Ns", 0, 0, 0, 0), wire.BadRequest, `namespace "Ns"`},
		{"reserved namespace", pack(t, 1, get, 0, "_verify", "k"), wire.BadRequest, "namespace _verify is VERIFY's own"},
		{"VERIFY for too long", pack(t, 1, verify, 0, 600_001), wire.BadRequest, "duration_ms: want a number from 0 to 600000"},
		{"VERIFY without the time for it", pack(t, 1, verify, 1000, 1000), wire.BadRequest, "give a timeout_ms above that, it is 1000"},
		{"HELLO without a body", pack(t, 1, hello, 0), wire.BadRequest, "HELLO takes a map"},
		{"HELLO with a text", pack(t, 1, hello, 0, "hi"), wire.BadRequest, "HELLO takes a map"},
		{"HELLO with text for versions", pack(t, 1, hello, 0, map[string]any{"v": "one"}), wire.BadRequest, "HELLO takes a map"},
		{"HELLO with a long name", pack(t, 1, hello, 0, map[string]any{"v": []int{1}, "client": strings.Repeat("c", 257)}), wire.BadRequest, "client has 257 bytes, at most 256"},
		{"HELLO with a bad namespace", pack(t, 1, hello, 0, map[string]any{"v": []int{1}, "ns": "Ns"}), wire.BadRequest, `namespace "Ns"`},
		{"HELLO with a huge body", pack(t, 1, hello, 0, map[string]any{"v": []int{1}, "token": strings.Repeat("c", 5000)}), wire.BadRequest, "at most 4096 are taken"},
	} {
		c := p.dial()
		c.must(setRequest("k", "old"))
		c.write(frame(tc.body))
		r, err := c.read(wire.OpPing)
		if err != nil || r.ID != 1 || r.Status != tc.status || !strings.Contains(string(r.Message), tc.want) {
			t.Errorf("%s: %v %q, %v, want %v %q", tc.name, r.Status, r.Message, err, tc.status, tc.want)
		}
		if r := c.call(getRequest("k")); string(r.Value) != "old" {
			t.Errorf("%s: afterwards the key has %q (%v)", tc.name, r.Value, r.Status)
		}
		c.close()
	}
	// A frame without an id cannot be answered.
	for name, body := range map[string][]byte{
		"no array": pack(t, 1)[1:], "a map": {0x80}, "no id": {0x90}, "text id": pack(t, "one", get), "negative id": pack(t, -1, get), "nil id": pack(t, nil, get),
	} {
		c := p.dial()
		c.write(frame(body))
		if answers := c.rest(); len(answers) > 0 {
			t.Errorf("%s: answered with %+v", name, answers)
		}
	}
	check()
}

// TestWrongKeysAmongMany checks that in a request of many keys an invalid key is reported
// in its place.
func TestWrongKeysAmongMany(t *testing.T) {
	p := runSidecar(t)
	c := p.dial()
	c.must(setRequest("k", "v"))
	keys := [][]byte{[]byte("k"), {}, bytes.Repeat([]byte("k"), 1024), bytes.Repeat([]byte("k"), 1025)}
	for op, want := range map[wire.Op][]wire.Status{
		wire.OpMGet:   {wire.OK, wire.BadRequest, wire.Miss, wire.BadRequest},
		wire.OpDelete: {wire.OK, wire.BadRequest, wire.Miss, wire.BadRequest},
	} {
		r := c.must(&wire.Request{Op: op, Keys: keys})
		for i := range want {
			if len(r.Items) != len(want) || r.Items[i].Status != want[i] {
				t.Fatalf("%v: %+v, want %v", op, r.Items, want)
			}
		}
		c.must(setRequest("k", "v"))
	}
}

func TestHello(t *testing.T) {
	p := runSidecar(t)
	c := p.connect()
	for _, op := range []wire.Op{wire.OpPing, wire.OpGet, wire.OpStats, wire.OpFlush} {
		q := &wire.Request{Op: op, Key: []byte("k")}
		if r := c.call(q); r.Status != wire.BadRequest || string(r.Message) != fmt.Sprintf("say HELLO before %v", op) {
			t.Errorf("%v first: %v %q", op, r.Status, r.Message)
		}
	}
	for _, versions := range [][]int{{3}, {99, 0, -1}, {}, nil} {
		r := c.call(&wire.Request{Op: wire.OpHello, Hello: wire.Hello{Versions: versions}})
		if r.Status != wire.Unsupported || !strings.Contains(string(r.Message), "speaks [2 1]: upgrade the older") {
			t.Errorf("versions %v: %v %q, want UNSUPPORTED and the versions spoken", versions, r.Status, r.Message)
		}
		if r := c.call(ping()); r.Status != wire.BadRequest {
			t.Errorf("after HELLO with versions %v: %v", versions, r.Status)
		}
	}
	r := c.must(&wire.Request{Op: wire.OpHello, Hello: wire.Hello{Versions: []int{7, 1}}})
	var w wire.Welcome
	if err := wire.UnmarshalBody(r.Body, &w); err != nil || w.Version != 1 {
		t.Errorf("welcome of a client of version 1: %+v, %v", w, err)
	}
	r = c.must(&wire.Request{Op: wire.OpHello, Hello: wire.Hello{Versions: []int{1, 7, 2}, Namespace: "mine"}})
	if err := wire.UnmarshalBody(r.Body, &w); err != nil || w.Version != wire.Version || w.Node != "host1" || w.Limits.Key != 1024 || w.Limits.Value != 8<<20 || len(w.Features) == 0 {
		t.Errorf("welcome: %+v, %v", w, err)
	}
	c.must(setRequest("k", "v"))
	other := p.dial()
	if r := other.call(&wire.Request{Op: wire.OpGet, Namespace: []byte("mine"), Key: []byte("k")}); string(r.Value) != "v" {
		t.Errorf("HELLO's namespace is not the connection's: %v", r.Status)
	}
	if r := other.call(getRequest("k")); r.Status != wire.Miss {
		t.Errorf("HELLO's namespace is everybody's: %v", r.Status)
	}
}

func TestValueLimits(t *testing.T) {
	p := runSidecar(t, "--max-value", "1MiB")
	check := p.bystander()
	c := p.dial()
	for _, tc := range []struct {
		size   int
		status wire.Status
	}{{1 << 20, wire.OK}, {1<<20 + 1, wire.TooLarge}, {1<<20 + wire.FrameSlack - 100, wire.TooLarge}, {0, wire.OK}} {
		r := c.call(setRequest("k", strings.Repeat("v", tc.size)))
		if r.Status != tc.status || tc.status != wire.OK && !strings.Contains(string(r.Message), fmt.Sprintf("the value has %d bytes, max_value is 1048576", tc.size)) {
			t.Errorf("%d bytes: %v %q, want %v", tc.size, r.Status, r.Message, tc.status)
		}
		c.must(ping())
	}
	// A year is the longest TTL; 0 means no expiry.
	q := setRequest("k", "v")
	for ms, want := range map[int64]int64{wire.MaxTTL: wire.MaxTTL, 0: 0, 1000: 1000} {
		q.TTLMS = ms
		c.must(q)
		if r := c.must(getRequest("k")); r.TTLMS > want || want > 0 && r.TTLMS < want-500 || want == 0 && r.TTLMS != 0 {
			t.Errorf("a TTL of %d ms becomes %d", ms, r.TTLMS)
		}
	}
	// A frame beyond the limit ends its connection, after an answer that says so.
	_ = c.nc.SetWriteDeadline(testenv.Deadline())
	c.id++
	_, err := c.nc.Write(wire.AppendRequest(nil, &wire.Request{ID: c.id, Op: wire.OpSet, Key: []byte("k"), Value: make([]byte, 2<<20), TTLMS: wire.TTLDefault}))
	if err == nil {
		err = errors.New("all of it was taken")
	}
	answers := c.rest()
	if len(answers) != 1 || answers[0].ID != c.id || answers[0].Status != wire.TooLarge {
		t.Errorf("a frame of 2 MiB (%v): %+v, want TOO_LARGE", err, answers)
	}
	check()
}
