package engine

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/transport"
)

// TestLeaseTimes checks that LEASEs give up when their time is over, in its order, however many end at one moment,
// and that those with a reply do not.
func TestLeaseTimes(t *testing.T) {
	t.Parallel()
	bubble.Test(t, func(t *testing.T) {
		var l leaseTimes
		began := time.Now()
		var ended []time.Duration
		add := func(in time.Duration) *leaseEnd {
			e := &leaseEnd{}
			l.add(e, in, func(*transport.Answers) { ended = append(ended, time.Since(began)) })
			return e
		}
		const many = 3 * endedAtOnce
		late, answered := add(time.Hour), add(time.Second)
		for range many {
			add(time.Minute)
		}
		first := add(time.Millisecond)
		l.remove(answered)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		want := append([]time.Duration{time.Millisecond}, slices.Repeat([]time.Duration{time.Minute}, many)...)
		if !slices.Equal(ended, want) {
			t.Errorf("%d ended, at %v, want %d", len(ended), slices.Compact(ended), len(want))
		}
		l.remove(first) // does nothing
		l.remove(late)
		add(time.Second)
		time.Sleep(2 * time.Hour)
		if synctest.Wait(); len(ended) != len(want)+1 || len(l.ends) != 0 {
			t.Errorf("%d ended in all, want %d; %d are left", len(ended), len(want)+1, len(l.ends))
		}
	})
}
