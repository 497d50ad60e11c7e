package kv

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func TestPartitionIsTopBits(t *testing.T) {
	for _, tc := range []struct {
		hash Hash
		want uint16
	}{{0, 0}, {math.MaxUint64, Partitions - 1}, {1 << 50, 1}, {1<<50 - 1, 0}} {
		if got := tc.hash.Partition(); got != tc.want {
			t.Errorf("Hash(%#x).Partition() = %d, want %d", uint64(tc.hash), got, tc.want)
		}
	}
}

func TestHashDependsOnSeedNamespaceAndKey(t *testing.T) {
	seen := map[Hash]string{}
	for _, seed := range []uint64{0, 1} {
		for _, ns := range []string{"default", "users"} {
			for _, key := range []string{"a", "b"} {
				name := fmt.Sprint(seed, ns, key)
				h := HashKey(NamespaceSeed(seed, ns), []byte(key))
				if other, ok := seen[h]; ok {
					t.Errorf("%s and %s share the hash %#x", name, other, uint64(h))
				}
				seen[h] = name
			}
		}
	}
}

func TestValidNamespace(t *testing.T) {
	for name, want := range map[string]bool{
		"default": true, "a": true, "users_v2.eu-west": true, strings.Repeat("x", 64): true,
		"": false, "Users": false, "a b": false, "ä": false, strings.Repeat("x", 65): false, "a/b": false,
	} {
		if got := ValidNamespace(name); got != want {
			t.Errorf("ValidNamespace(%q) = %v, want %v", name, got, want)
		}
	}
}

func TestHLCIsStrictlyIncreasingAndUnique(t *testing.T) {
	a, b := NewHLC(1), NewHLC(2)
	const n = 10_000
	var mu sync.Mutex
	seen := map[Version]bool{}
	var wg sync.WaitGroup
	for _, c := range []*HLC{a, a, b, b} {
		wg.Go(func() {
			last := Version(0)
			for range n {
				v := c.Next(1_700_000_000_000) // a wall clock that stands still
				if v <= last {
					t.Errorf("%v after %v", v, last)
				}
				last = v
				mu.Lock()
				if seen[v] {
					t.Errorf("%v stamped twice", v)
				}
				seen[v] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func TestHLCExceedsWhatItObserved(t *testing.T) {
	c := NewHLC(3)
	ahead := NewHLC(9).Next(1_800_000_000_000)
	c.Observe(ahead)
	if got := c.Next(1_700_000_000_000); got <= ahead {
		t.Errorf("Next after Observe(%v) = %v", ahead, got)
	}
	c.Observe(1) // an old version moves nothing back
	if got := c.Next(0); got <= ahead {
		t.Errorf("Next after an old Observe = %v, want above %v", got, ahead)
	}
}

// TestHLCNeverWraps checks that versions increase, whatever the clock observes and
// whatever the wall clock reads, and that the clock panics at its very end.
func TestHLCNeverWraps(t *testing.T) {
	for _, v := range []Version{math.MaxUint64, math.MaxUint64 - 1<<tagBits, (lastObserved + 1) << tagBits, lastObserved << tagBits, 478 << 32} {
		for _, wall := range []int64{0, -1, 1_700_000_000_000, 1<<42 - 1, 1 << 42, 1 << 52, math.MaxInt64, math.MinInt64} {
			c := NewHLC(3)
			last := c.Next(wall)
			if merged := c.Observe(v); merged != (v>>tagBits <= lastObserved) {
				t.Errorf("Observe(%d) = %v", uint64(v), merged)
			} else if merged {
				last = max(last, v)
			}
			for range 3 {
				next := c.Next(wall)
				if next <= last {
					t.Fatalf("wall clock %d, after %d: %d", wall, uint64(last), uint64(next))
				}
				last = next
			}
		}
	}
	c := NewHLC(0)
	c.last.Store(1<<(64-tagBits) - 2)
	c.Next(0)
	defer func() {
		if recover() == nil {
			t.Error("the clock goes on past its end")
		}
	}()
	c.Next(0)
}

// handClock stands where the test sets it.
type handClock struct{ Moment }

func (c *handClock) Read() Moment { return c.Moment }

// TestHLCFollows checks that versions follow a wall clock only as far as the boot clock
// has advanced, and so come back with it.
func TestHLCFollows(t *testing.T) {
	const start = 1_700_000_000_000
	clock := &handClock{Moment{Wall: start, Boot: time.Hour}}
	c := NewHLC(1)
	c.Follow(clock)
	next := func(wall int64, boot time.Duration) int64 {
		clock.Moment = Moment{Wall: start + wall, Boot: time.Hour + boot}
		return c.Next(clock.Wall).Wall().UnixMilli() - start
	}
	for _, tc := range []struct {
		name string
		wall int64
		boot time.Duration
		want int64
	}{
		{"as the boot clock", 1000, time.Second, 1000},
		{"a little ahead", 1400, time.Second, 1400},
		{"set an hour ahead", 3_601_000, time.Second, 1500},
		{"and on", 3_602_000, 2 * time.Second, 2500},
		{"set back", 3000, 3 * time.Second, 3000},
		{"set behind", -3_600_000, 3 * time.Second, 3000},
		{"after a long sleep", 7_200_000, 2 * time.Hour, 7_200_000},
	} {
		if got := next(tc.wall, tc.boot); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
	// The time of the other hosts; this host's was wrong.
	c.Observe(FirstVersionAt(start + 9_000_000))
	if got := next(9_000_200, 2*time.Hour); got != 9_000_200 {
		t.Errorf("behind the others: %d", got)
	}
}

func TestVersionParts(t *testing.T) {
	v := NewHLC(77).Next(1_700_000_000_123)
	if got := v.Wall().UnixMilli(); got != 1_700_000_000_123 {
		t.Errorf("Wall = %d", got)
	}
	if v.Tag() != 77 {
		t.Errorf("Tag = %d", v.Tag())
	}
	if first := FirstVersionAt(1_700_000_000_123); v < first || v > FirstVersionAt(1_700_000_000_124) {
		t.Errorf("%v lies outside its own millisecond", v)
	}
}

func TestDeadline(t *testing.T) {
	now := 5 * time.Hour
	for _, tc := range []struct {
		name   string
		ttl    time.Duration
		at     time.Duration
		passed bool
	}{
		{"never", 0, 1 << 60, false},
		{"just before", time.Second, now + time.Second - 1, false},
		{"at", time.Second, now + time.Second, true},
		{"a nanosecond rounds up", 1, now + 1, false},
		{"huge is capped, not wrapped", math.MaxInt64, now, false},
	} {
		if got := After(now, tc.ttl).Passed(tc.at); got != tc.passed {
			t.Errorf("%s: passed = %v, want %v", tc.name, got, tc.passed)
		}
	}
	if d := After(now, math.MaxInt64); d != MaxDeadline {
		t.Errorf("After(huge) = %d, want %d", d, MaxDeadline)
	}
	if got := After(now, 3*time.Second).Remaining(now); got != 3*time.Second {
		t.Errorf("Remaining = %v", got)
	}
	if got := After(now, time.Second).Remaining(now + time.Hour); got != 1 {
		t.Errorf("Remaining of a passed deadline = %v, want 1ns", got)
	}
}

func TestSystemClock(t *testing.T) {
	testenv.ReadsClock(t, time.Minute, "the clock is what is tested; the test may be late to ask")
	c := NewSystemClock()
	for range 1000 {
		before := bootTime()
		m := c.Read()
		after := bootTime()
		if m.Boot < before-clockTolerance || m.Boot > after+clockTolerance {
			t.Fatalf("boot clock %v, the system's went from %v to %v", m.Boot, before, after)
		}
		if d := time.Since(m.Time()); d < -time.Minute || d > time.Minute {
			t.Fatalf("wall clock is off by %v", d)
		}
	}
}

// TestSystemClockFindsSleep checks that the clock finds a sleep, which shows as a move of
// the wall clock against the monotonic one, and that a step of the wall clock does no
// harm.
func TestSystemClockFindsSleep(t *testing.T) {
	for _, moved := range []time.Duration{10 * time.Second, -10 * time.Second, 2 * clockTolerance} {
		c := NewSystemClock()
		base := *c.base.Load()
		base.wall -= moved // as if the wall clock had moved since
		base.boot -= moved
		c.base.Store(&base)
		before := bootTime()
		boot := c.Read().Boot
		if after := bootTime(); boot < before-clockTolerance || boot > after+clockTolerance {
			t.Errorf("after a move by %v the boot clock is %v, the system's went from %v to %v", moved, boot, before, after)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	c := NewSystemClock()
	for b.Loop() {
		c.Read()
	}
}

// TestNewEpoch checks that epochs grow with time, whatever their random bits, and that
// processes of one millisecond get different epochs.
func TestNewEpoch(t *testing.T) {
	const wall = 1_700_000_000_000
	if a, b := NewEpoch(wall, math.MaxUint32), NewEpoch(wall+1, 0); a >= b {
		t.Errorf("%v, a millisecond later %v", a, b)
	}
	if a, b := NewEpoch(wall, 1), NewEpoch(wall, 2); a == b {
		t.Errorf("%v twice", a)
	}
}
