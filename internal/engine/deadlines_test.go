package engine_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// inStore reports whether the caller was called by the store, which then is in a critical
// section.
func inStore() bool {
	var pcs [16]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		f, more := frames.Next()
		if strings.Contains(f.Function, "/l2/segment.") {
			return true
		}
		if !more {
			return false
		}
	}
}

// lateWrites has every kind of write, of the key "k", which has a value, or of the key
// "none", which has no value.
var lateWrites = []wire.Request{
	{Op: wire.OpSet, Value: []byte("7")},
	{Op: wire.OpSet, Value: make([]byte, 300<<10)}, // over several segments
	{Op: wire.OpSet, Value: []byte("7"), Key: []byte("none"), Mode: wire.ModeAdd},
	{Op: wire.OpSet, Value: []byte("7"), Mode: wire.ModeReplace},
	{Op: wire.OpSet, Value: []byte("7"), Mode: wire.ModeCAS},
	{Op: wire.OpSet, Value: []byte("7"), Mode: wire.ModeAppend},
	{Op: wire.OpSet, Value: []byte("7"), Mode: wire.ModePrepend, Key: []byte("none"), Options: wire.Create},
	{Op: wire.OpTouch, TTLMS: 1000},
	{Op: wire.OpMetaGet, TTLMS: 1000, Options: wire.Touch},
	{Op: wire.OpIncr, Delta: 1},
	{Op: wire.OpIncr, Delta: 1, Create: true, Initial: 5, Key: []byte("none")},
	{Op: wire.OpFill, Value: []byte("7"), Key: []byte("none")},
}

// TestOverdueWrites checks that a write is not executed if the process stands still past
// the write's deadline, wherever that happens. Here it happens at the last possible place,
// within the critical section. The caller has named the deadline itself, or only a timeout.
func TestOverdueWrites(t *testing.T) {
	for _, named := range []bool{true, false} {
		for _, q := range lateWrites {
			t.Run(fmt.Sprint(q.Op, " mode ", q.Mode, " of ", len(q.Value), " bytes, named=", named), func(t *testing.T) {
				bubble.Test(t, func(t *testing.T) { overdue(t, q, named) })
			})
		}
	}
}

func overdue(t *testing.T, q wire.Request, named bool) {
	clock := onehost.NewClock()
	h := onehost.New(t, onehost.Config{Clock: clock})
	version := h.Set("k", "1").Version
	if q.Mode == wire.ModeCAS || q.Mode == wire.ModeAppend {
		q.Compare = version
	}
	if q.Key == nil {
		q.Key = []byte("k")
	}
	if q.TTLMS == 0 {
		q.TTLMS = wire.TTLDefault
	}
	if q.Op == wire.OpFill {
		q.Token = h.Lease(string(q.Key), 0).Token
	}
	if named {
		q.UntilNS = uint64(clock.Read().Boot + 500*time.Millisecond)
	} else {
		q.TimeoutMS = 500
	}
	clock.Before(func() {
		if inStore() {
			clock.Before(nil)
			clock.Skip(2 * time.Second)
		}
	})
	r := h.Do(q)
	if want := "s after its caller had given it up: nothing was done"; r.Status != wire.Unavailable ||
		!strings.Contains(string(r.Message), want) {
		t.Errorf("%s: %s %q, want UNAVAILABLE: … %s", q.Op, r.Status, r.Message, want)
	}
	if v := h.Get("k", 0); v.Status != wire.OK || string(v.Value) != "1" || v.Version != version || v.TTLMS < 60_000 {
		t.Errorf("k is %s %q, version %d, ttl %d ms: want what was there", v.Status, v.Value, v.Version, v.TTLMS)
	}
	if v := h.Get("none", 0); v.Status != wire.Miss {
		t.Error("what was absent is there")
	}
	if n := h.Counts.Overdue.Load(); n != 1 {
		t.Errorf("%d writes are counted as overdue", n)
	}
}

// TestOverdueMisses checks that reads, and writes that can only cause misses, are executed
// however late they are.
func TestOverdueMisses(t *testing.T) {
	h := onehost.New(t, onehost.Config{})
	const past = 1 // ns after the machine's start
	set := func(until uint64) wire.Reply {
		return h.Do(wire.Request{Op: wire.OpSet, Key: []byte("k"), Value: []byte("v"), TTLMS: wire.TTLDefault, UntilNS: until})
	}
	if r := set(past); r.Status != wire.Unavailable || !strings.Contains(string(r.Message), "the SET came ") {
		t.Errorf("SET: %s %s", r.Status, r.Message)
	}
	if r := set(uint64(h.Clock.Read().Boot + time.Minute)); r.Status != wire.OK {
		t.Errorf("SET in time: %s %s", r.Status, r.Message)
	}
	late := func(q wire.Request) wire.Reply {
		q.UntilNS = past
		return h.Do(q)
	}
	onehost.Is(t, "a late GET", late(wire.Request{Op: wire.OpGet, Key: []byte("k")}), wire.OK, "v")
	if r := late(wire.Request{Op: wire.OpDelete, Keys: [][]byte{[]byte("k")}}); r.Items[0].Status != wire.OK {
		t.Errorf("a late DELETE: %s", r.Items[0].Status)
	}
	onehost.Is(t, "after the DELETE", h.Get("k", 0), wire.Miss, "")
}
