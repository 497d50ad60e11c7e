package quota

import (
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
)

// flow is a test's requests in a Window.
type flow struct {
	w *Window

	mu    sync.Mutex
	began []string // those that have waited, in the order of their turns
}

type request struct {
	Work
	of   *flow
	name string
}

func (r *request) TurnCame(time.Duration) {
	r.of.mu.Lock()
	defer r.of.mu.Unlock()
	r.of.began = append(r.of.began, r.name)
}

// turns returns the names of those that have waited, in the order of their turns.
func (f *flow) turns() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.began)
}

// begin begins a request, and says whether it need not wait.
func (f *flow) begin(by *Account, size int, name string) (r *request, now bool) {
	r = &request{of: f, name: name}
	return r, f.w.Begin(&r.Work, by, size, r)
}

// fill begins requests of an account until one has to wait, and returns those that have begun, and the one that waits.
func (f *flow) fill(by *Account, size int) (begun []*request, last *request) {
	for {
		r, now := f.begin(by, size, "last")
		if !now {
			return begun, r
		}
		begun = append(begun, r)
	}
}

// end ends requests.
func end(list ...*request) {
	for _, r := range list {
		r.End()
	}
}

func testWindow(t *testing.T, test func(t *testing.T, f *flow, b *Budget)) {
	t.Helper()
	t.Parallel()
	bubble.Test(t, func(t *testing.T) {
		w := NewWindow()
		w.few = 64
		test(t, &flow{w: w}, NewBudget(0))
	})
}

// TestWindowAlone checks that one process may have a thousand requests under way, or few of many keys.
func TestWindowAlone(t *testing.T) {
	testWindow(t, func(t *testing.T, f *flow, b *Budget) {
		for _, c := range []struct{ size, most int }{{1, aloneWork}, {1_000, aloneWork / 64}} {
			f.began = nil // no timer runs
			begun, last := f.fill(b.Open("a", "1"), c.size)
			if len(begun) != c.most {
				t.Errorf("%d requests of size %d under way, want %d", len(begun), c.size, c.most)
			}
			if end(begun[0], begun[0]); len(f.turns()) != 0 {
				t.Error("one begins although the window is nearly full")
			}
			late, now := f.begin(b.Open("a", "1"), c.size, "late")
			if now {
				t.Error("one begins before one that waits")
			}
			if end(begun[1:]...); !slices.Equal(f.turns(), []string{"last", "late"}) || f.w.Waiting() != 0 {
				t.Errorf("%v began, %d wait", f.turns(), f.w.Waiting())
			}
			if end(last, late); f.w.used() != 0 {
				t.Errorf("%d under way at the end", f.w.used())
			}
		}
	})
}

// TestWindowOfManyProcessors checks that one process alone may have no less under way than several.
func TestWindowOfManyProcessors(t *testing.T) {
	testWindow(t, func(t *testing.T, f *flow, b *Budget) {
		f.w.few = 2 * aloneWork
		if begun, _ := f.fill(b.Open("a", "1"), 1); len(begun) < f.w.few {
			t.Errorf("%d under way, want %d", len(begun), f.w.few)
		}
	})
}

// TestWindowShared checks that a process with nothing under way need not wait for one that has as much as it may, and
// that few requests are under way from then on.
func TestWindowShared(t *testing.T) {
	testWindow(t, func(t *testing.T, f *flow, b *Budget) {
		flood, other := b.Open("a", "1"), b.Open("a", "2")
		begun, last := f.fill(flood, 1)
		first, now := f.begin(other, 1, "other")
		if !now {
			t.Fatal("the first request of another process waits")
		}
		for len(f.turns()) == 0 && len(begun) > 0 {
			end(begun[0])
			begun = begun[1:]
		}
		if n := len(begun); n != f.w.few/2 {
			t.Errorf("the next one begins beside %d others, want %d", n, f.w.few/2)
		}
		end(append(begun, last, first)...)
		begun, last = f.fill(flood, 1)
		if len(begun) != f.w.few {
			t.Errorf("%d under way, want %d", len(begun), f.w.few)
		}
		end(begun...)
		end(last)
		time.Sleep(sharedTime)
		if begun, _ = f.fill(flood, 1); len(begun) != aloneWork {
			t.Errorf("%d under way a second later, want %d", len(begun), aloneWork)
		}
	})
}

// TestWindowOfFirsts checks that the first requests of many processes are few too, and leave some of the places to the
// first ones of tenants.
func TestWindowOfFirsts(t *testing.T) {
	testWindow(t, func(t *testing.T, f *flow, b *Budget) {
		f.fill(b.Open("a", "0"), 1)
		firsts := func(nameOf func(i int) (tenant, process string)) (n int) {
			for ; n < 1000; n++ {
				if _, now := f.begin(b.Open(nameOf(n)), 4, ""); !now {
					break
				}
			}
			return n
		}
		want := f.w.few / 2 / 4
		n := firsts(func(i int) (string, string) { return "a", strconv.Itoa(i + 1) })
		if n != want {
			t.Errorf("the first requests of %d processes begin, want %d", n, want)
		}
		if n = firsts(func(i int) (string, string) { return strconv.Itoa(i), "1" }); n != want {
			t.Errorf("the first requests of %d tenants begin, want %d", n, want)
		}
	})
}

// TestWindowBesideSlowWork checks that a process that has little under way at a time hardly waits for its turns while
// processes have more slow requests than may be under way: one of its user's, or many of another's.
func TestWindowBesideSlowWork(t *testing.T) {
	for _, c := range []struct {
		tenant    string
		processes int
	}{{"victim", 1}, {"other", 1}, {"other", 200}} {
		t.Run(c.tenant+strconv.Itoa(c.processes), func(t *testing.T) {
			testWindow(t, func(t *testing.T, f *flow, b *Budget) {
				var all sync.WaitGroup
				stop := time.Now().Add(500 * time.Millisecond)
				asks := func(by *Account, takes time.Duration) (waited time.Duration) {
					for time.Now().Before(stop) {
						var k Work
						waited = max(waited, f.w.Wait(&k, by, 1))
						time.Sleep(takes)
						k.End()
					}
					return waited
				}
				for i := range 2_000 {
					a := b.Open(c.tenant, strconv.Itoa(i%c.processes))
					all.Go(func() { asks(a, longWork*10) })
				}
				victim := b.Open("victim", "victim")
				for range 8 {
					all.Go(func() {
						time.Sleep(longWork * 5) // the others have begun
						if d := asks(victim, longWork/10); d > longWork/10 {
							t.Errorf("beside %d processes of %q it waits %v", c.processes, c.tenant, d)
						}
					})
				}
				all.Wait()
			})
		})
	}
}

// TestWindowOfHosts checks that few requests are under way while apps of another host ask this one.
func TestWindowOfHosts(t *testing.T) {
	testWindow(t, func(t *testing.T, f *flow, b *Budget) {
		a := b.Open("a", "1")
		f.w.Share() // nothing is under way
		r, _ := f.begin(a, 1, "")
		f.w.Share()
		if begun, _ := f.fill(a, 1); len(begun) != f.w.few-1 {
			t.Errorf("%d under way, want %d", len(begun)+1, f.w.few)
		}
		end(r)
	})
}

// TestWindowTurns checks that tenants take turns, and in the turns of a tenant its processes.
func TestWindowTurns(t *testing.T) {
	testWindow(t, func(t *testing.T, f *flow, b *Budget) {
		flood, other := b.Open("x", "1"), b.Open("y", "1")
		mine, _ := f.begin(other, 64, "")
		begun, last := f.fill(flood, 1)
		second := b.Open("x", "2")
		for _, name := range []string{"too long to be its first", "x2"} {
			f.begin(second, 64, name)
		}
		f.begin(flood, 1, "x1")
		f.begin(other, 1, "y1")
		end(append(begun, mine, last)...)
		if want := []string{"last", "y1", "too long to be its first"}; !slices.Equal(f.turns(), want) {
			t.Errorf("%v, want %v", f.turns(), want)
		}
		time.Sleep(2 * longWork)
		synctest.Wait()
		if want := []string{"last", "y1", "too long to be its first", "x1", "x2"}; !slices.Equal(f.turns(), want) {
			t.Errorf("%v, want %v", f.turns(), want)
		}
	})
}

// TestWindowOfSlowWork checks that requests that wait for something slow keep no others from their turns.
func TestWindowOfSlowWork(t *testing.T) {
	testWindow(t, func(t *testing.T, f *flow, b *Budget) {
		a := b.Open("a", "1")
		begun, _ := f.fill(a, 1)
		at := time.Now()
		for len(f.turns()) == 0 && time.Since(at) < time.Minute {
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		if d := time.Since(at); d > 2*longWork {
			t.Errorf("the next one begins after %v, want %v", d, 2*longWork)
		}
		end(begun...) // they count for nothing
		if f.w.used() < 0 || len(f.w.young.of[0])+len(f.w.old.of[0]) > 1 {
			t.Errorf("%d under way, of %d and %d processes", f.w.used(), len(f.w.young.of[0]), len(f.w.old.of[0]))
		}
	})
}

// TestWindowOfThisProcess checks that what this process does itself never waits.
func TestWindowOfThisProcess(t *testing.T) {
	testWindow(t, func(t *testing.T, f *flow, b *Budget) {
		f.fill(b.Open("a", "1"), 1)
		f.fill(b.Open("a", "2"), 64)
		for range 2 {
			var k Work
			if d := f.w.Wait(&k, nil, 64); d != 0 {
				t.Errorf("it waits %v", d)
			}
			defer k.End()
		}
	})
}
