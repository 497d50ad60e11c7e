package session_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/doors"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestEveryOp runs a sequence of requests on a few keys, one request a line.
func TestEveryOp(t *testing.T) {
	c := doors.Serve(t, onehost.Config{}).App()
	big := strings.Repeat("x", kv.MaxKeyLen+1)
	var version uint64 // of the last write that stored a value
	for i, tc := range []struct {
		q    wire.Request
		want string // status, then the fields that matter
	}{
		{wire.Request{Op: wire.OpPing}, "OK"},
		{wire.Request{Op: wire.OpGet, Key: []byte("a")}, "MISS not_cached"},
		{wire.Request{Op: wire.OpSet, Key: []byte("a"), Value: []byte("1"), TTLMS: wire.TTLDefault, Attributes: kv.Attributes{Flags: 9}}, "OK"},
		{wire.Request{Op: wire.OpGet, Key: []byte("a")}, "OK 1 flags 9 ttl 3600000 l2"},
		{wire.Request{Op: wire.OpGet, Namespace: []byte("default"), Key: []byte("a")}, "OK 1 flags 9 ttl 3600000 l2"},
		{wire.Request{Op: wire.OpGet, Namespace: []byte("other"), Key: []byte("a")}, "MISS not_cached"},
		{wire.Request{Op: wire.OpSet, Key: []byte("a"), Value: []byte("2"), Mode: wire.ModeAdd}, "EXISTS"},
		{wire.Request{Op: wire.OpSet, Key: []byte("a"), Value: []byte("2"), Mode: wire.ModeCAS, Compare: 1}, "EXISTS"},
		{wire.Request{Op: wire.OpSet, Key: []byte("a"), Value: []byte("2"), Mode: wire.ModeCAS, Compare: 0}, "OK"}, // 0: filled in below
		{wire.Request{Op: wire.OpSet, Key: []byte("b"), Value: []byte("2"), Mode: wire.ModeReplace}, "MISS not_cached"},
		{wire.Request{Op: wire.OpSet, Key: []byte("b"), Value: []byte("2"), Mode: wire.ModeCAS, Compare: 1}, "MISS not_cached"},
		{wire.Request{Op: wire.OpSet, Key: []byte("b"), Value: []byte("2"), Mode: wire.ModeAdd, TTLMS: 0}, "OK"},
		{wire.Request{Op: wire.OpGet, Key: []byte("b")}, "OK 2 flags 0 ttl 0 l2"},
		{wire.Request{Op: wire.OpTouch, Key: []byte("b"), TTLMS: 60_000}, "OK"},
		{wire.Request{Op: wire.OpGet, Key: []byte("b")}, "OK 2 flags 0 ttl 60000 l2"},
		{wire.Request{Op: wire.OpTouch, Key: []byte("c"), TTLMS: 60_000}, "MISS not_cached"},
		{wire.Request{Op: wire.OpMGet, Keys: doors.Keys("a", "c", "b", big)}, "OK [OK 2 flags 0 ttl 0 l2, MISS not_cached, OK 2 flags 0 ttl 60000 l2, BAD_REQUEST the key has 1025 bytes: a key has 1 to 1024]"},
		{wire.Request{Op: wire.OpIncr, Key: []byte("a"), Delta: 40, TTLMS: wire.TTLDefault}, "OK number 42"},
		{wire.Request{Op: wire.OpIncr, Key: []byte("n"), Delta: 1}, "MISS not_cached"},
		{wire.Request{Op: wire.OpIncr, Key: []byte("n"), Delta: 1, Create: true, Initial: 7}, "OK number 7"},
		{wire.Request{Op: wire.OpSet, Key: []byte("w"), Value: []byte("word")}, "OK"},
		{wire.Request{Op: wire.OpIncr, Key: []byte("w"), Delta: 1}, "NOT_STORED the value is no decimal 64-bit number: SET one first, or DELETE the key and give an initial value"},
		{wire.Request{Op: wire.OpDelete, Keys: doors.Keys("a", "c")}, "OK [OK, MISS]"},
		{wire.Request{Op: wire.OpGet, Key: []byte("a")}, "MISS not_cached"},
		{wire.Request{Op: wire.OpRing, Key: []byte("a")}, "OK body"},
		{wire.Request{Op: wire.OpMembers}, "OK body"},
		{wire.Request{Op: wire.OpStats}, "OK body"},
		{wire.Request{Op: wire.OpGet, Key: []byte("")}, "BAD_REQUEST the key has 0 bytes: a key has 1 to 1024"},
		{wire.Request{Op: wire.OpSet, Key: []byte(big)}, "BAD_REQUEST the key has 1025 bytes: a key has 1 to 1024"},
		{wire.Request{Op: wire.OpSet, Namespace: []byte("Bad"), Key: []byte("a")}, `BAD_REQUEST namespace "Bad": a name is 1 to 64 of a-z, 0-9, _, . and -`},
		{wire.Request{Op: wire.OpGet, Namespace: []byte("Bad"), Key: []byte("a")}, `BAD_REQUEST namespace "Bad": a name is 1 to 64 of a-z, 0-9, _, . and -`},
		{wire.Request{Op: wire.OpDelete, Namespace: []byte("Bad"), Keys: doors.Keys("a")}, `OK [BAD_REQUEST namespace "Bad": a name is 1 to 64 of a-z, 0-9, _, . and -]`},
		{wire.Request{Op: wire.OpSet, Key: []byte("v"), Value: make([]byte, 512<<10+1)}, "TOO_LARGE the value has 524289 bytes, max_value is 524288: split it, or raise max_value"},
		{wire.Request{Op: wire.OpDelete, Keys: doors.Keys("b"), ReplicaLagMS: 5}, "OK [OK]"},
		{wire.Request{Op: wire.OpSet, Key: []byte("b"), Value: []byte("2"), TTLMS: 60_000}, "OK"},
		{wire.Request{Op: wire.OpLease, Key: []byte("b")}, "OK"},
		{wire.Request{Op: wire.OpFill, Key: []byte("b"), Token: []byte("none"), Value: []byte("x"), TTLMS: wire.TTLDefault}, "NOT_STORED the token is none that the present owner of the key \"b\" has issued: use the value, and ask again next time"},
		{wire.Request{Op: wire.OpWatch}, "OK body"},
		{wire.Request{Op: wire.OpFlush, Namespace: []byte("other")}, "OK"},
		{wire.Request{Op: wire.OpGet, Key: []byte("b")}, "OK 2 flags 0 ttl 60000 l2"},
		{wire.Request{Op: wire.OpFlush, Options: wire.All | wire.Cluster}, "OK"},
		{wire.Request{Op: wire.OpGet, Key: []byte("b")}, "MISS not_cached"},
		{wire.Request{Op: wire.OpFlush, Namespace: []byte("Bad")}, `BAD_REQUEST namespace "Bad": a name is 1 to 64 of a-z, 0-9, _, . and -`},
	} {
		q := tc.q
		if q.Mode == wire.ModeCAS && q.Compare == 0 {
			q.Compare = version
		}
		r := c.Call(q)
		if q.Op == wire.OpSet && r.Status == wire.OK {
			if r.Version <= version {
				t.Errorf("step %d: version %d after %d", i, r.Version, version)
			}
			version = r.Version
		}
		if got := show(q.Op, &r, true); got != tc.want {
			t.Errorf("step %d, %s %s: got %q, want %q", i, q.Op, q.Key, got, tc.want)
		}
	}
}

// show shows a reply in the form of TestEveryOp.
func show(op wire.Op, r *wire.Reply, whole bool) string {
	text := r.Status.String()
	switch {
	case r.Status.IsError() || r.Status == wire.NotStored:
		return text + " " + string(r.Message)
	case r.Status == wire.Miss && op != wire.OpDelete:
		return text + " " + r.Why.String()
	case r.Status != wire.OK:
		return text
	case whole && (op == wire.OpMGet || op == wire.OpDelete):
		var items []string
		for i := range r.Items {
			items = append(items, show(op, &r.Items[i], false))
		}
		return text + " [" + strings.Join(items, ", ") + "]"
	case op == wire.OpGet || op == wire.OpMGet:
		ttl := (r.TTLMS + 59_999) / 60_000 * 60_000 // some of it has passed already
		return fmt.Sprintf("%s %s flags %d ttl %d %s", text, r.Value, r.Flags, ttl, r.Source)
	case op == wire.OpIncr:
		return fmt.Sprintf("%s number %d", text, r.Number)
	case r.Body != nil:
		return text + " body"
	}
	return text
}

// TestPipelineKeepsOrder checks that requests of one connection for one key take effect
// in their order, even within one batch.
func TestPipelineKeepsOrder(t *testing.T) {
	c := doors.Serve(t, onehost.Config{}).App()
	var batch []byte
	for i := range 200 {
		batch = wire.AppendRequest(batch, &wire.Request{ID: uint64(2 * i), Op: wire.OpSet, Key: []byte("k"), Value: fmt.Append(nil, i)})
		batch = wire.AppendRequest(batch, &wire.Request{ID: uint64(2*i + 1), Op: wire.OpGet, Key: []byte("k")})
	}
	c.Send(batch)
	for i := range 200 {
		c.Receive(wire.OpSet)
		if r := c.Receive(wire.OpGet); string(r.Value) != fmt.Sprint(i) {
			t.Fatalf("GET after SET %d = %q", i, r.Value)
		}
	}
}

// TestLargeAnswers checks values up to the limit, alone and in MGET. In MGET an answer
// that becomes too long ends in BUSY.
func TestLargeAnswers(t *testing.T) {
	doors.Virtually(t, onehost.Config{L2Size: 256 << 20, MaxValue: 8 << 20}, func(t *testing.T, h *doors.Host) {
		c := h.App()
		sizes := []int{30 << 10, 31 << 10, 32 << 10, 64 << 10, 65 << 10, 1 << 20, 8 << 20}
		var all [][]byte
		for i, n := range sizes {
			key := fmt.Appendf(nil, "k%d", i)
			all = append(all, key)
			value := bytes.Repeat([]byte{byte(i)}, n)
			if r := c.Call(wire.Request{Op: wire.OpSet, Key: key, Value: value}); r.Status != wire.OK {
				t.Fatalf("SET of %d bytes: %s %s", n, r.Status, r.Message)
			}
			if r := c.Call(wire.Request{Op: wire.OpGet, Key: key}); !bytes.Equal(r.Value, value) {
				t.Errorf("GET of %d bytes: %s, %d bytes", n, r.Status, len(r.Value))
			}
		}
		r := c.Call(wire.Request{Op: wire.OpMGet, Keys: all})
		for i, n := range sizes {
			if r.Items[i].Status != wire.OK || len(r.Items[i].Value) != n {
				t.Errorf("MGET item %d: %s, %d bytes, want %d", i, r.Items[i].Status, len(r.Items[i].Value), n)
			}
		}
		r = c.Call(wire.Request{Op: wire.OpMGet, Keys: [][]byte{all[6], all[6], all[6], all[0]}})
		for i, want := range []wire.Status{wire.OK, wire.OK, wire.Busy, wire.Busy} {
			if r.Items[i].Status != want {
				t.Errorf("MGET beyond 16 MiB, item %d: %s, want %s", i, r.Items[i].Status, want)
			}
		}
		// The buffers are given back after the answer is written.
		testenv.Eventually(t, "all buffers to come back", func() bool { return h.Servers["app"].Stats().BufferBytes == 0 })
	})
}

// TestOrderBehindAWait checks that requests for a key wait for an earlier one of their
// connection that waits, and that requests for other keys do not.
func TestOrderBehindAWait(t *testing.T) {
	o := onehost.NewOrigin(50 * time.Millisecond)
	cfg := onehost.Config{Namespaces: onehost.One(func(s *namespaces.Settings) { s.Origin, s.WriteThrough = o.Writable(), true })}
	doors.Virtually(t, cfg, func(t *testing.T, h *doors.Host) {
		c := h.App()
		get := wire.Request{Op: wire.OpGet, Key: []byte("k"), Options: wire.NoLoad}
		free := get
		free.Key = []byte("a third")
		var batch []byte
		for i, q := range []wire.Request{
			{Op: wire.OpSet, Key: []byte("k"), Value: []byte("v"), TTLMS: wire.TTLDefault}, get,
			{Op: wire.OpMGet, Keys: doors.Keys("other", "k"), Options: wire.NoLoad},
			{Op: wire.OpDelete, Keys: doors.Keys("k")}, get, free, {Op: wire.OpHits, Keys: doors.Keys("k"), Hits: wire.Hits{Near: 5}},
			{Op: wire.OpHits, Keys: doors.Keys("k"), Hits: wire.Hits{Near: 5}, Options: wire.Quiet}, // has no answer
		} {
			q.ID = uint64(i)
			batch = wire.AppendRequest(batch, &q)
		}
		c.Send(batch)
		got := map[uint64]wire.Reply{}
		for i := range 7 {
			frame := c.Frame()
			id, _ := wire.PeekID(frame)
			if i < 2 && id < 5 {
				t.Errorf("request %d is answered first", id)
			}
			op := []wire.Op{wire.OpSet, wire.OpGet, wire.OpMGet, wire.OpDelete, wire.OpGet, wire.OpGet, wire.OpHits}[id]
			got[id] = c.Decode(op, frame)
		}
		onehost.Is(t, "a GET behind the SET", got[1], wire.OK, "v")
		onehost.Is(t, "an MGET behind the SET", got[2].Items[1], wire.OK, "v")
		onehost.Is(t, "the DELETE", got[3].Items[0], wire.OK, "")
		onehost.Is(t, "a GET behind the DELETE", got[4], wire.Miss, "")
		onehost.Is(t, "a report of hits of a key whose SET waits", got[6], wire.OK, "")
	})
}
