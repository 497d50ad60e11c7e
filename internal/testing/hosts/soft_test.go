package hosts

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestSoftDelete checks that the value of a softly deleted key goes only to readers that
// ask for it, marked as stale, wherever the key is. It goes to no reader after another
// change of the key.
func TestSoftDelete(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	a, b := twoHosts(t, Config{})
	ctx := t.Context()
	ask := func(h *host, op wire.Op, options wire.Options, key []byte, also ...[]byte) wire.Reply {
		t.Helper()
		q := &wire.Request{Op: op, Namespace: []byte(DefaultNamespace), Options: options, Key: key, TTLMS: wire.TTLDefault}
		if op != wire.OpGet {
			q.Key, q.Keys = nil, append([][]byte{key}, also...)
		}
		if op == wire.OpMGet {
			b := namespaces.Pins{Table: h.engine.Namespaces}
			defer b.Release()
			return h.engine.Serve(ctx, q, &b, h.engine.Clock.Read().Boot+time.Minute)
		}
		r, err := h.execute(ctx, q)
		if err != nil && !errors.Is(err, cachesidecar.ErrNotFound) {
			if r.Status != wire.Stale {
				t.Fatalf("%s: %v", op, err)
			}
		}
		return r
	}
	for i := range 20 {
		key, long := fmt.Appendf(nil, "key%d", i), make([]byte, 300<<10)
		value := []byte("value")
		if i%5 == 0 {
			value = long // a chain of segments
		}
		set := func(h *host) {
			t.Helper()
			if _, err := h.Set(ctx, "default", string(key), value, cachesidecar.SetOptions{Flags: 7}); err != nil {
				t.Fatal(err)
			}
		}
		set(a)
		ask(b, wire.OpGet, 0, key) // makes a copy, on one of the two hosts
		if r := ask(b, wire.OpDelete, wire.Soft, key); r.Items[0].Status != wire.OK {
			t.Fatalf("soft deletion: %+v", r.Items[0])
		}
		if r := ask(b, wire.OpGet, 0, key); r.Status != wire.Miss {
			t.Errorf("%s, without the option: %s", key, r.Status)
		}
		for _, h := range []*host{b, a} {
			r := ask(h, wire.OpGet, wire.StaleOK, key)
			for r.Status == wire.OK { // a copy: its host has not heard yet
				r = ask(h, wire.OpGet, wire.StaleOK, key)
			}
			if r.Status != wire.Stale || string(r.Value) != string(value) || r.Flags != 7 || r.AgeMS > 5000 || r.TTLMS > DefaultStaleLimit.Milliseconds() {
				t.Errorf("%s: %s with %d bytes, flags %d, age %d ms, ttl %d ms", key, r.Status, len(r.Value), r.Flags, r.AgeMS, r.TTLMS)
			}
			if r := ask(h, wire.OpMGet, wire.StaleOK, key, []byte("none")); r.Items[0].Status != wire.Stale || len(r.Items[0].Value) != len(value) || r.Items[1].Status != wire.Miss {
				t.Errorf("%s: MGET: %+v", key, r.Items[1])
			}
		}
		switch i % 3 {
		case 0:
			ask(a, wire.OpDelete, 0, key)
		case 1:
			set(b)
			ask(a, wire.OpDelete, 0, key)
		case 2:
			if err := a.Flush(ctx, "default", cachesidecar.FlushOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if r := ask(b, wire.OpGet, wire.StaleOK, key); r.Status != wire.Miss {
			t.Errorf("%s, gone for good: %s", key, r.Status)
		}
	}
}
