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

func note(l *SlowList, ns, key string, took, now time.Duration) {
	l.Note([]byte(ns), took, at(now), func() SlowCall { return SlowCall{Key: []byte(key)} })
}

func only(ns string) func(string) bool { return func(name string) bool { return name == ns } }

// TestSlowest notes calls of random durations and compares with the slowest of all.
func TestSlowest(t *testing.T) {
	var l SlowList
	var want []time.Duration
	for range 10_000 {
		took := time.Duration(rand.Int64N(int64(100 * time.Millisecond)))
		note(&l, "ns", "", took, time.Hour)
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
		note(&l, "ns", "", time.Second, time.Duration(i))
	}
	ns := []byte("ns")
	never := func() SlowCall { t.Error("described"); return SlowCall{} }
	for _, took := range []time.Duration{0, SlowThreshold - 1, SlowThreshold, time.Second} {
		testenv.Allocates(t, took.String(), 0, 100, func() { l.Note(ns, took, at(SlowAge), never) })
	}
}

// TestAge checks that calls leave after their time, and make room for faster ones.
func TestAge(t *testing.T) {
	var l SlowList
	for i := range mostSlow {
		note(&l, "ns", "old", time.Second, time.Duration(i)*time.Second)
	}
	note(&l, "ns", "early", SlowThreshold, SlowAge)
	note(&l, "ns", "late", SlowThreshold, SlowAge+time.Second) // the first old one has left
	count := func(now time.Duration, key string) (n int) {
		for _, c := range l.Slowest(1000, now, all) {
			if string(c.Key) == key {
				n++
			}
		}
		return n
	}
	if count(SlowAge+time.Second, "early") != 0 || count(SlowAge+time.Second, "late") != 1 {
		t.Errorf("new calls: %v", l.Slowest(1000, SlowAge+time.Second, all))
	}
	if n := count(SlowAge+time.Second, "old"); n != mostSlow-1 {
		t.Errorf("%d old calls", n)
	}
	if n := count(2*SlowAge+time.Minute, "old"); n != 0 {
		t.Errorf("%d old calls after their time", n)
	}
}

// TestSlowShares checks that the slow calls of a namespace are not hidden by slower ones of others, and that those
// that are kept are its slowest.
func TestSlowShares(t *testing.T) {
	var l SlowList
	flood := func(ns string) {
		for range 1000 {
			note(&l, ns, "", time.Second+time.Duration(rand.Int64N(1000)), time.Hour)
		}
	}
	flood("a")
	for i := range 40 {
		note(&l, "mine", "", SlowThreshold+time.Duration(i), time.Hour)
		if i == 10 {
			flood("b")
		}
	}
	flood("a")
	flood("c")
	got := l.Slowest(1000, time.Hour, only("mine"))
	if len(got) < mostSlow/4 || len(l.calls) > mostSlow {
		t.Fatalf("%d calls are kept, of %d in all", len(got), len(l.calls))
	}
	for i := range got {
		if want := SlowThreshold + time.Duration(39-i); got[i].Took != want {
			t.Errorf("call %d took %v, want %v", i, got[i].Took, want)
		}
	}
	for i := range 2 * mostSlow { // more namespaces than places
		note(&l, fmt.Sprint(i), "", SlowThreshold+time.Duration(i), time.Hour)
	}
	for i, c := range l.Slowest(1000, time.Hour, all) {
		if i >= 3 && c.Took != SlowThreshold+time.Duration(2*mostSlow+2-i) {
			t.Errorf("call %d of many namespaces took %v", i, c.Took)
		}
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
