package loader

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

var accounts = quota.NewBudget(0)

// as returns a context of what a process asks.
func as(t *testing.T, tenant, process string) context.Context {
	return quota.WithAccount(t.Context(), accounts.Open(tenant, process))
}

// hold has a process take places of a queue until it gets none at once. It returns their number, and leaves
// the callers that wait to the end of the test.
func hold(t *testing.T, q *Queue, ctx context.Context) (n int) {
	t.Helper()
	before, _ := q.Len()
	for range q.most[running] + q.most[waiting] {
		go func() { // ends with the test's context, or a minute after it was admitted
			if leave, err := q.Enter(ctx); err == nil {
				time.Sleep(time.Minute)
				leave()
			}
		}()
	}
	synctest.Wait()
	after, _ := q.Len()
	return int(after - before)
}

// TestPlacesOfOneAlone: a process that alone has asked lately gets all places, and all of the queue. What the host does
// for itself changes nothing.
func TestPlacesOfOneAlone(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		q := NewQueue(64, 128, 2*time.Minute)
		for _, ctx := range []context.Context{as(t, "uid 1", "pid 2"), t.Context()} {
			leave, err := q.Enter(ctx)
			testenv.Must(t, err)
			leave()
		}
		time.Sleep(lately)
		if n := hold(t, q, as(t, "uid 1", "pid 1")); n != 64 {
			t.Errorf("it has %d places", n)
		}
		if _, n := q.Len(); n != 128 {
			t.Errorf("%d wait", n)
		}
		time.Sleep(3 * time.Minute)
	})
}

// TestPlacesInFairShares: of two processes the first one that takes all it gets leaves places to the other one, at once
// and in the queue; a process of another tenant gets more of what is left.
func TestPlacesInFairShares(t *testing.T) {
	for _, tc := range []struct{ tenant, process string }{{"uid 1", "pid 2"}, {"uid 2", "pid 3"}, {"", ""}} {
		bubble.Test(t, func(t *testing.T) {
			q := NewQueue(64, 1024, time.Second)
			hog, other := as(t, "uid 1", "pid 1"), as(t, tc.tenant, tc.process)
			for _, ctx := range []context.Context{as(t, "uid 3", "pid 3"), other, hog} { // none is alone
				leave, err := q.Enter(ctx)
				testenv.Must(t, err)
				leave()
			}
			if n := hold(t, q, hog); n != 56 {
				t.Errorf("the first one has %d places", n)
			}
			if _, n := q.Len(); n != 896 {
				t.Errorf("%d of the first one wait", n)
			}
			if n := hold(t, q, other); n == 0 {
				t.Errorf("%s of %s gets no place", tc.process, tc.tenant)
			}
			if _, n := q.Len(); n <= 896 {
				t.Errorf("none of %s of %s waits", tc.process, tc.tenant)
			}
			time.Sleep(2 * time.Minute)
		})
	}
}

// TestPlacesInTurns: a place that gets free goes to the tenants in turns, and within a tenant to its processes.
func TestPlacesInTurns(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		q := NewQueue(1, 100, time.Minute)
		leave, err := q.Enter(as(t, "c", "0"))
		testenv.Must(t, err)
		var got []string
		for _, of := range []string{"a1", "a1", "a1", "a2", "a2", "a3", "b4", "b4"} {
			go func() { // ends with its turn
				leave, err := q.Enter(as(t, of[:1], of[1:]))
				testenv.Should(t, err)
				got = append(got, of)
				time.Sleep(time.Second)
				leave()
			}()
			synctest.Wait()
		}
		leave()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if want := []string{"a1", "b4", "a2", "b4", "a3", "a1", "a2", "a1"}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

// TestStandingQueueOfAnother: the queue that one process keeps standing sheds its own callers, and none of another
// process, of its tenant or of another one; and each gets its part of the places.
func TestStandingQueueOfAnother(t *testing.T) {
	for _, tenant := range []string{"uid 1", "uid 2"} {
		t.Run(tenant, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				q := NewQueue(16, 1024, time.Second)
				hog := &offer{q: q, takes: 10 * time.Millisecond, places: 16, ctx: as(t, "uid 1", "pid 1")}
				var over sync.WaitGroup
				over.Go(func() { hog.run(t, 4*time.Second) })
				time.Sleep(time.Second)
				ctx := as(t, tenant, "pid 2")
				for range 50 { // together as many as are more than one request's
					var request sync.WaitGroup
					for range 2 * together {
						request.Go(func() {
							leave, err := q.Enter(ctx)
							if err != nil {
								t.Error(err)
								return
							}
							time.Sleep(hog.takes)
							leave()
						})
					}
					began := time.Now()
					request.Wait()
					if took := time.Since(began); took > 12*hog.takes {
						t.Fatalf("it took %v", took)
					}
				}
				var steady sync.WaitGroup // its line stands too, but it is the smaller one
				for range 12 {
					steady.Go(func() {
						for range 50 {
							leave, err := q.Enter(ctx)
							if err != nil {
								t.Error(err)
								return
							}
							time.Sleep(hog.takes)
							leave()
						}
					})
				}
				steady.Wait()
				over.Wait()
				if hog.busy == 0 {
					t.Error("the first one's queue does not stand")
				}
			})
		})
	}
}

// TestAskersAreBounded: however many processes a tenant makes, a bounded number of them is known, and others are known
// all the same. Those that have not asked lately are forgotten.
func TestAskersAreBounded(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		q := NewQueue(1, 1, time.Second)
		enter := func(tenant, process string) *asker {
			ctx := as(t, tenant, process)
			leave, err := q.Enter(ctx)
			testenv.Must(t, err)
			leave()
			return q.askers.last
		}
		for i := range 2 * maxAskers {
			enter("uid 1", fmt.Sprint("pid ", i))
		}
		if n := q.askers.processes; n > maxAskers*7/8+1 || q.askers.find("uid 1", "") == nil {
			t.Errorf("%d processes of one tenant are known", n)
		}
		if a := enter("uid 2", "pid 1"); a.String() != "pid 1 of uid 2" {
			t.Errorf("another tenant's process is known as %v", a)
		}
		for i := range 2 * maxAskers {
			enter(fmt.Sprint("uid ", 10+i), "pid 2")
		}
		if n := q.askers.processes; n > maxAskers+1 || q.askers.last.String() != others {
			t.Errorf("%d processes are known, the last one as %v", n, q.askers.last)
		}
		time.Sleep(lately)
		enter("uid 3", "pid 3")
		if n, tenants := q.askers.processes, len(q.askers.all.below); n != 1 || tenants != 1 {
			t.Errorf("after a minute %d processes of %d tenants are known", n, tenants)
		}
	})
}

// TestBusyNamesWhoHasMost: the error of a full queue says whose loads wait, unless one process alone asks.
func TestBusyNamesWhoHasMost(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		q := NewQueue(16, 16, time.Minute)
		hog := as(t, "uid 1", "pid 1")
		wants := func(want string) {
			t.Helper()
			if _, err := q.Enter(hog); !errors.Is(err, ErrBusy) || !strings.HasSuffix(err.Error(), want) {
				t.Errorf("%v, want …%s", err, want)
			}
		}
		hold(t, q, hog)
		wants(": 16 loads wait already")
		time.Sleep(2 * lately)
		leave, err := q.Enter(as(t, "uid 2", "pid 2"))
		testenv.Must(t, err)
		hold(t, q, hog)
		wants(": 14 loads wait already, 14 of pid 1 of uid 1")
		leave()
		time.Sleep(3 * time.Minute)
	})
}
