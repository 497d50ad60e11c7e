package engine_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestCopiesTakeMemory makes requests that have a long value copied, while there is no memory for the
// copy. They are BUSY, and neither copy nor change anything.
func TestCopiesTakeMemory(t *testing.T) {
	h := onehost.New(t, onehost.Config{L2Size: 64 << 20, BufferSize: 8 << 20})
	long := strings.Repeat("x", 1<<20)
	onehost.Is(t, "SET", h.Set("k", long), wire.OK, "")
	hog, own := h.Budget.Open("hog", ""), h.Budget.Open("uid 1", "")
	var held quota.Held
	held.Begin(own, 0)
	serve := func(q wire.Request) wire.Reply {
		ctx := quota.WithHeld(context.Background(), &held)
		b := namespaces.Pins{Table: h.Namespaces}
		defer b.Release()
		q.Namespace = []byte("default")
		r := h.ServeNow(ctx, &q, &b, h.Clock.Read().Boot+time.Minute)
		if len(r.Items) == 1 {
			return r.Items[0]
		}
		return r
	}
	for name, q := range map[string]wire.Request{
		"GET":     {Op: wire.OpGet, Key: []byte("k")},
		"LEASE":   {Op: wire.OpLease, Key: []byte("k")},
		"METAGET": {Op: wire.OpMetaGet, Key: []byte("k")},
		"MGET":    {Op: wire.OpMGet, Keys: [][]byte{[]byte("k")}},
		"append":  {Op: wire.OpSet, Key: []byte("k"), Value: []byte("y"), Mode: wire.ModeAppend},
		"prepend": {Op: wire.OpSet, Key: []byte("k"), Value: []byte("y"), Mode: wire.ModePrepend},
		"FILL":    {Op: wire.OpFill, Key: []byte("k"), Value: []byte(long), Token: make([]byte, 40)},
		"cas":     {Op: wire.OpSet, Key: []byte("k"), Value: []byte(long), Mode: wire.ModeCAS, Compare: 1},
	} {
		hog.Force(quota.ForAnswers, h.Budget.Size())
		before := h.Store.Stats()
		if r := serve(q); r.Status != wire.Busy || !strings.Contains(string(r.Message), "the memory for what is under way") {
			t.Errorf("%s without memory: %s %s", name, r.Status, r.Message)
		}
		if s := h.Store.Stats(); s.Hits != before.Hits || s.Overwritten != before.Overwritten {
			t.Errorf("%s is BUSY, and has done something", name)
		}
		hog.Give(quota.ForAnswers, h.Budget.Size())
		if r := serve(q); r.Status == wire.Busy || strings.HasSuffix(name, "GET") && !bytes.HasPrefix(r.Value[1:], []byte(long[1:])) {
			t.Errorf("%s with memory: %s %s, %d bytes", name, r.Status, r.Message, len(r.Value))
		}
		if held.Free(); own.Used() != 0 {
			t.Errorf("%s leaves %d bytes charged", name, own.Used())
		}
	}
	hog.Force(quota.ForAnswers, h.Budget.Size())
	if r := serve(wire.Request{Op: wire.OpMetaGet, Key: []byte("k"), Options: wire.NoValue}); r.Status != wire.OK {
		t.Errorf("METAGET without the value copies none, and is %s %s", r.Status, r.Message)
	}
}

// TestLoadsTakeMemory loads a value that there is no memory for. The origin is not to blame: its
// breaker stays closed. What a load has taken is given back once its readers have the value.
func TestLoadsTakeMemory(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		o := onehost.NewOrigin(10 * time.Millisecond)
		o.Put("k", bytes.Repeat([]byte("x"), 100_000))
		h := loading(t, o, func(s *namespaces.Settings) { s.Guard.Breaker.Failures = 1 })
		hog := h.Budget.Open("hog", "")
		hog.Force(quota.ForAnswers, h.Budget.Size())
		for range 2 {
			if r := h.Get("k", 0); r.Status != wire.Busy || !strings.Contains(string(r.Message), "there is no memory for its answer") {
				t.Errorf("without memory: %s %s", r.Status, r.Message)
			}
		}
		hog.Give(quota.ForAnswers, h.Budget.Size())
		if r := h.Get("k", 0); r.Status != wire.OK || len(r.Value) != 100_000 {
			t.Errorf("with memory: %s %s", r.Status, r.Message)
		}
		if n := o.Asked("k"); n != 3 {
			t.Errorf("the origin was asked %d times", n)
		}
		synctest.Wait() // the load ends behind its readers
		if n := h.Budget.Stats().Total(); n != 0 {
			t.Errorf("%d bytes stay charged", n)
		}
	})
}
