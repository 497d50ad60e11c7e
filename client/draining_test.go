package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/calls"
	"github.com/cachesidecar/cachesidecar/internal/testing/race"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// counter is a key whose values count up from 0. One client writes it.
type counter struct {
	key string

	mu    sync.Mutex
	acked []time.Time // of each value, when it was acknowledged
}

// write writes the next value.
func (c *counter) write(t *testing.T, by *client.Client) {
	value := strconv.AppendInt(nil, int64(len(c.acked)), 10) // only its writer changes it
	set := func() error {
		_, err := by.Set(context.Background(), c.key, value, cachesidecar.SetOptions{})
		return err
	}
	if race.Enabled { // then the hosts stand still at times, and rightly give up what they own
		testenv.Succeeds(t, "SET "+c.key, set)
	} else if err := set(); err != nil {
		t.Errorf("SET %s to %s: %v", c.key, value, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acked = append(c.acked, time.Now())
}

// least returns the least value that a read may return which begins now.
func (c *counter) least(bound time.Duration) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	due := time.Now().Add(-bound)
	return max(0, sort.Search(len(c.acked), func(i int) bool { return c.acked[i].After(due) })-1)
}

// read reads the counter, and reports whether the near cache had it.
func (c *counter) read(t *testing.T, by *client.Client, bound time.Duration) (near bool) {
	least := c.least(bound)
	it, err := by.Get(context.Background(), c.key, cachesidecar.GetOptions{})
	if errors.Is(err, calls.ErrDegraded) || errors.Is(err, cachesidecar.ErrNotFound) {
		return false // no owner answered, or handed the value over, in time: on a busy machine the hosts stand still
	}
	if err != nil {
		t.Errorf("GET %s: %v", c.key, err)
		return false
	}
	if n, err := strconv.Atoi(string(it.Value)); err != nil || n < least {
		t.Errorf("%s is %q from %s, and %d was acknowledged longer ago than the bound", c.key, it.Value, it.Source, least)
	}
	return it.Source == "near"
}

// TestNearWhileDrained checks that a near cache returns no value that was overwritten
// longer ago than the bound, and that no write fails, while one of two hosts is drained
// and undone, again and again. That no read misses is TestVirtualDrain's, where time stands
// still while the hosts work.
func TestNearWhileDrained(t *testing.T) {
	testenv.Takes(t, 6*time.Second)
	const staleness, own = 2 * time.Second, 100 * time.Millisecond // what a busy machine keeps
	testenv.ReadsClock(t, 2100*time.Millisecond, "no read may return what was overwritten longer ago than the bound of staleness")
	clients := twoHostsWith(t, staleness, client.NearCache{Bytes: 1 << 20, Bound: own})
	var counters []*counter
	for i := range 10 {
		c := &counter{key: fmt.Sprint("key", i)}
		c.write(t, clients[i%4])
		counters = append(counters, c)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	var near atomic.Int64
	for i, c := range counters {
		wg.Go(func() { // is slower than the readers
			for ; ctx.Err() == nil; rest(ctx, 50*time.Millisecond) {
				c.write(t, clients[i%4])
			}
		})
	}
	for _, by := range clients {
		wg.Go(func() {
			for ; ctx.Err() == nil; rest(ctx, 5*time.Millisecond) {
				for _, c := range counters {
					if c.read(t, by, staleness+own) {
						near.Add(1)
					}
				}
			}
		})
	}
	for range 3 {
		rest(ctx, 400*time.Millisecond)
		var d cachesidecar.Drained
		testenv.Succeeds(t, "drain", func() (err error) { // on a busy machine the hosts may lose each other for a while
			d, err = clients[0].Drain(ctx, cachesidecar.DrainOptions{})
			return err
		})
		if (d.NotTaken != 0 || d.Partitions == 0) && !race.Enabled {
			t.Errorf("drain: %+v", d)
		}
		rest(ctx, 400*time.Millisecond)
		testenv.Succeeds(t, "undo", func() (err error) {
			d, err = clients[0].Drain(ctx, cachesidecar.DrainOptions{Undo: true})
			return err
		})
		if !d.Undone && !race.Enabled {
			t.Errorf("undo: %+v", d)
		}
		awaitIn(t, clients...)
		awaitEntries(t, clients...)
	}
	least := int64(1000)
	if race.Enabled {
		least = 100
	}
	testenv.Eventually(t, fmt.Sprint(least, " reads from near caches"), func() bool { return near.Load() >= least })
}

// awaitEntries waits until no host fetches entries of others: what has not come is lost
// with the next drain.
func awaitEntries(t *testing.T, clients ...*client.Client) {
	t.Helper()
	testenv.Eventually(t, "no entries are moving", func() bool {
		return !slices.ContainsFunc(clients, func(c *client.Client) bool {
			st, err := c.Stats(t.Context())
			testenv.Must(t, err)
			return st.Cluster.Handoff.Pulling > 0 || st.Cluster.Handoff.OpenOffers > 0
		})
	})
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
