package main

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// pack encodes a request element by element, valid or not.
func pack(t testing.TB, elements ...any) []byte {
	t.Helper()
	b, err := msgpack.Marshal(elements)
	testenv.Must(t, err)
	return b
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

// TestWrongRequests checks that an invalid request is answered with the reason, and that the
// next one is served. What makes a request invalid is in the tests of package wire.
func TestWrongRequests(t *testing.T) {
	t.Parallel()
	p := runSidecar(t)
	check := p.bystander()
	const get, incr, ring, verify = wire.OpGet, wire.OpIncr, wire.OpRing, wire.OpVerify
	for _, tc := range []struct {
		name   string
		body   []byte
		status wire.Status
		want   string
	}{
		{"unknown op", pack(t, 1, 31), wire.Unsupported, "op 31 is unknown; ops 1 to "},
		{"no key", pack(t, 1, get, 0, nil), wire.BadRequest, "key is missing"},
		{"delta beyond 64 bits", pack(t, 1, incr, 0, nil, "k", uint64(math.MaxUint64)), wire.BadRequest, "delta and initial: want signed 64-bit numbers"},
		{"RING of a long key", pack(t, 1, ring, 0, nil, strings.Repeat("k", 1025)), wire.BadRequest, "the key has 1025 bytes"},
		{"reserved namespace", pack(t, 1, get, 0, "_verify", "k"), wire.BadRequest, "namespace _verify is VERIFY's own"},
		{"VERIFY for too long", pack(t, 1, verify, 0, 600_001), wire.BadRequest, "duration_ms: want a number from 0 to 600000"},
		{"VERIFY without the time for it", pack(t, 1, verify, 1000, 1000), wire.BadRequest, "give a timeout_ms above that, it is 1000"},
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
	for name, bytes := range map[string][]byte{"no length": {0, 0, 0, 0}, "a map": frame([]byte{0x80}), "text id": frame(pack(t, "one", get))} {
		c := p.dial()
		c.write(bytes)
		if answers := c.rest(); len(answers) > 0 {
			t.Errorf("%s: answered with %+v", name, answers)
		}
	}
	check()
}

func TestValueLimits(t *testing.T) {
	t.Parallel()
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
