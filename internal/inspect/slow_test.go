package inspect

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func at(boot time.Duration) kv.Moment { return kv.Moment{Wall: 1_700_000_000_000, Boot: boot} }

func describe(ns, key string) func() SlowCall {
	return func() SlowCall { return SlowCall{Namespace: ns, Key: []byte(key)} }
}

// TestSlowest notes calls of random durations and compares with the slowest of all.
func TestSlowest(t *testing.T) {
	var l SlowList
	var want []time.Duration
	for range 10_000 {
		took := time.Duration(rand.Int64N(int64(100 * time.Millisecond)))
		l.Note(took, at(time.Hour), describe("ns", ""))
		if took >= SlowThreshold {
			want = append(want, took)
		}
	}
	slices.Sort(want)
	slices.Reverse(want)
	got := l.Slowest(1000, time.Hour, all)
	if len(got) != mostSlow {
		t.Fatalf("%d calls are kept", len(got))
	}
	for i := range got {
		if got[i].Took != want[i] {
			t.Fatalf("call %d took %v, want %v", i, got[i].Took, want[i])
		}
	}
	if c := got[0]; c.Began != 1_700_000_000_000-c.Took.Milliseconds() {
		t.Errorf("began at %d", c.Began)
	}
	if got := l.Slowest(3, time.Hour, all); len(got) != 3 {
		t.Errorf("%d of 3", len(got))
	}
}

// TestFastCallsCostNothing checks that a call that is not kept is not described, and
// allocates nothing.
func TestFastCallsCostNothing(t *testing.T) {
	var l SlowList
	for i := range mostSlow {
		l.Note(time.Second, at(time.Duration(i)), describe("ns", ""))
	}
	never := func() SlowCall { t.Error("described"); return SlowCall{} }
	for _, took := range []time.Duration{0, SlowThreshold - 1, SlowThreshold, time.Second} {
		testenv.Allocates(t, took.String(), 0, 100, func() { l.Note(took, at(SlowAge), never) })
	}
}

// TestAge checks that calls leave after their time, and make room for faster ones.
func TestAge(t *testing.T) {
	var l SlowList
	for i := range mostSlow {
		l.Note(time.Second, at(time.Duration(i)*time.Second), describe("old", ""))
	}
	l.Note(SlowThreshold, at(SlowAge), describe("new", "early"))
	l.Note(SlowThreshold, at(SlowAge+time.Second), describe("new", "late")) // the first old one has left
	count := func(now time.Duration) (n int) {
		return len(l.Slowest(1000, now, func(ns string) bool { return ns == "old" }))
	}
	if got := l.Slowest(1000, SlowAge+time.Second, func(ns string) bool { return ns == "new" }); len(got) != 1 || string(got[0].Key) != "late" {
		t.Errorf("new calls: %v", got)
	}
	if n := count(SlowAge + time.Second); n != mostSlow-1 {
		t.Errorf("%d old calls", n)
	}
	if n := count(2*SlowAge + time.Minute); n != 0 {
		t.Errorf("%d old calls after their time", n)
	}
}

// TestTrace checks the parts of a call in virtual time, from several goroutines.
func TestTrace(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var trace Trace
		ctx := WithTrace(context.Background(), &trace)
		wait := func(ctx context.Context, what, node string, d time.Duration) {
			defer BeginWait(ctx, what, node)()
			time.Sleep(d)
		}
		wait(ctx, Order, "", time.Second)
		wait(context.Background(), Load, "", time.Second)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { wait(ctx, Owner, "b", 2*time.Second) })
		}
		wg.Wait()
		want := []Part{{Order, "", time.Second}, {Owner, "b", 6 * time.Second}}
		if got := trace.Parts(); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		for i := range 100 {
			trace.Add(Owner, fmt.Sprint(i), leastPart)
		}
		if n := len(trace.Parts()); n != maxParts {
			t.Errorf("%d parts", n)
		}
	})
}
