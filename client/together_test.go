package client_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/race"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// twoHosts runs two sidecars as one cache. It returns two clients of each, like two
// processes on each host.
func twoHosts(t *testing.T) (clients []*client.Client) {
	t.Helper()
	bound := 2 * time.Second // to begin takes as long, and so does the first change that all acknowledge
	if race.Enabled {
		bound = 5 * time.Second // they stand still at times
	}
	return twoHostsWith(t, bound, client.NearCache{})
}

func twoHostsWith(t *testing.T, bound time.Duration, near client.NearCache) (clients []*client.Client) {
	t.Helper()
	t.Cleanup(func() { // once both have ended; a probe of gossip goes on for half a second
		testenv.Succeeds(t, "their goroutines end", func() error { return goleak.Find() })
	})
	var free []string
	for range 4 {
		free = append(free, testenv.FreeAddress(t))
	}
	for i := range 2 {
		path := filepath.Join(t.TempDir(), "s")
		serveWith(t, sidecar.Config{
			Node: fmt.Sprint("host", i), Socket: path, L2Size: 8 << 20, L1Size: 1 << 20, MaxStaleness: bound,
			Bind: free[i], PeerBind: free[2+i], Join: free[:2],
			Namespaces: map[string]sidecar.Namespace{"default": {LeaseTime: time.Minute}}, // for a loaded machine
		})
		cfg := client.Config{Socket: path, NearCache: near}
		clients = append(clients, dial(t, cfg), dial(t, cfg))
	}
	awaitIn(t, clients...)
	return clients
}

// awaitIn waits until all clients see all hosts in.
func awaitIn(t *testing.T, clients ...*client.Client) {
	t.Helper()
	testenv.Eventually(t, "all views have all hosts in", func() bool {
		in := 0
		for _, c := range clients {
			members, err := c.Members(t.Context())
			testenv.Must(t, err)
			for _, m := range members {
				if m.State == "in" && m.Partitions > 0 {
					in++
				}
			}
		}
		return in == 2*len(clients)
	})
}

// awaitClaims waits until n claims wait for a fill, at the hosts of the clients.
func awaitClaims(t *testing.T, n int, clients ...*client.Client) {
	t.Helper()
	testenv.Eventually(t, fmt.Sprint(n, " claims wait"), func() bool {
		waiting := map[string]int64{}
		for _, c := range clients {
			st, err := c.Stats(t.Context())
			testenv.Must(t, err)
			waiting[st.Node] = st.LeaseTokens.Waiting
		}
		var sum int64
		for _, w := range waiting {
			sum += w
		}
		return sum >= int64(n)
	})
}

// TestGetOrLoadTogether checks that there is one load for all callers, in all processes,
// on all hosts. It also checks that no caller that asks after a deletion that all sidecars
// know sees a value that was loaded before it.
func TestGetOrLoadTogether(t *testing.T) {
	testenv.Takes(t, 6*time.Second)
	clients := twoHosts(t)
	var truth, loads atomic.Int64
	load := func(context.Context, string) ([]byte, error) {
		loads.Add(1)
		seen := truth.Load()
		awaitClaims(t, len(clients)-1, clients...)
		return fmt.Append(nil, seen), nil
	}
	for round := range 3 {
		key := fmt.Sprint("key", round) // either host may own it
		loads.Store(0)
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				c := clients[i%len(clients)]
				it, err := c.GetOrLoad(t.Context(), key, load, client.LoadOptions{})
				if err != nil || string(it.Value) != "0" {
					t.Errorf("%s: %q from %s, %v", key, it.Value, it.Source, err)
				}
			})
		}
		wg.Wait()
		if n := loads.Load(); n != 1 {
			t.Errorf("%s: %d loads", key, n)
		}
	}
	for round := range int64(3) {
		done := make(chan struct{})
		load := func(context.Context, string) ([]byte, error) {
			loads.Add(1)
			seen := truth.Load()
			<-done
			return fmt.Append(nil, seen), nil
		}
		key := fmt.Sprint("other", round)
		truth.Store(2 * round)
		loads.Store(0)
		var wg sync.WaitGroup
		wg.Go(func() {
			testenv.Should(t, testenv.ErrorOf(clients[0].GetOrLoad(t.Context(), key, load, client.LoadOptions{})))
		})
		testenv.Eventually(t, "a load", func() bool { return loads.Load() > 0 })
		wg.Go(func() { // waits for that load
			testenv.Should(t, testenv.ErrorOf(clients[1].GetOrLoad(t.Context(), key, load, client.LoadOptions{})))
		})
		awaitClaims(t, 1, clients...)
		truth.Store(2*round + 1)
		// Without AckAll a sidecar that has not heard of the deletion lets reads join the load.
		err := clients[3].Delete(t.Context(), key, cachesidecar.DeleteOptions{AckAll: true})
		if !errors.Is(err, cachesidecar.ErrNotFound) {
			t.Errorf("deletion of a key that is not loaded yet: %v", err)
		}
		for _, c := range clients {
			wg.Go(func() {
				it, err := c.GetOrLoad(t.Context(), key, load, client.LoadOptions{})
				if err != nil || string(it.Value) != fmt.Sprint(2*round+1) {
					t.Errorf("%s after its deletion: %q from %s, %v; want %d", key, it.Value, it.Source, err, 2*round+1)
				}
			})
		}
		testenv.Eventually(t, "a second load", func() bool { return loads.Load() >= 2 })
		close(done) // ends both loads: the value of the first one comes too late
		wg.Wait()
		if n := loads.Load(); n != 2 {
			t.Errorf("%s: %d loads, want one before the deletion and one after", key, n)
		}
		for _, c := range clients {
			if it, err := c.Get(t.Context(), key, cachesidecar.GetOptions{}); err != nil || string(it.Value) != fmt.Sprint(2*round+1) {
				t.Errorf("%s at the end: %q, %v", key, it.Value, err)
			}
		}
	}
}

// TestLeaseTogether checks that the lease of a process that ends goes to the next caller.
func TestLeaseTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	serve(t, path)
	a, b := dial(t, client.Config{Socket: path}), dial(t, client.Config{Socket: path})
	if _, l, err := a.Lease(t.Context(), "k", cachesidecar.GetOptions{}); err != nil || l == nil || l.TTL < time.Second {
		t.Fatalf("%+v, %v", l, err)
	}
	waits := make(chan *client.Lease)
	go func() {
		_, l, err := b.Lease(t.Context(), "k", cachesidecar.GetOptions{})
		if err != nil {
			t.Error(err)
		}
		waits <- l
	}()
	awaitClaims(t, 1, a)
	a.Close()
	l := <-waits
	if l == nil {
		t.Fatal("no lease for who waits")
	}
	v, err := l.Fill(t.Context(), []byte("value"), client.FillOptions{TTL: time.Minute, Flags: 3})
	testenv.Must(t, err)
	it, l, err := b.Lease(t.Context(), "k", cachesidecar.GetOptions{})
	if err != nil || l != nil || string(it.Value) != "value" || it.Version != v || it.Flags != 3 || it.TTL > time.Minute || it.TTL < 50*time.Second {
		t.Errorf("%+v, %v, %v", it, l, err)
	}
}
