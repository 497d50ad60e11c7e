package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// keptCluster is three hosts that keep their memory and their sockets.
type keptCluster struct {
	t      *testing.T
	stores [3]*systemdStore
	flags  [3][]string
	hosts  []*process
}

func newKeptCluster(t *testing.T) *keptCluster {
	t.Helper()
	ports, err := freePorts(6)
	testenv.Must(t, err)
	k := &keptCluster{t: t}
	join := []string{loopback(ports[0]), loopback(ports[2]), loopback(ports[4])}
	for i := range k.stores {
		k.stores[i] = newSystemdStore(t)
		k.stores[i].keeps("unix", k.stores[i].socket)
		k.stores[i].node = fmt.Sprint("host", i)
		k.flags[i] = []string{
			"--keep-memory", "--l2-size", "64MiB", "--bind", join[i], "--peer-bind", loopback(ports[2*i+1]),
			"--join", strings.Join(join, ","),
		}
		k.hosts = append(k.hosts, k.stores[i].start(k.flags[i]...))
	}
	whole(t, k.hosts...)
	return k
}

// restart restarts a host, with do between its processes, and waits until it knows what it serves again.
func (k *keptCluster) restart(i int, do func()) cachesidecar.KeptStats {
	k.t.Helper()
	k.stores[i].ends(k.hosts[i])
	do()
	k.hosts[i] = k.stores[i].start(k.flags[i]...)
	whole(k.t, k.hosts...)
	testenv.Succeeds(k.t, "to know what is served again", func() error {
		if s := takenOver(k.hosts[i]); s.Cold == "" && s.Waiting > 0 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	return takenOver(k.hosts[i])
}

func (k *keptCluster) end() {
	for i := range k.hosts {
		k.stores[i].ends(k.hosts[i])
	}
}

// TestKeepMemoryInCluster restarts a host of three. Its keys are there again, but for those that were changed while
// it was down, and next to nothing comes back to it from the others.
func TestKeepMemoryInCluster(t *testing.T) {
	t.Parallel()
	k := newKeptCluster(t)
	c, err := client.Dial(t.Context(), client.Config{Socket: k.stores[1].socket})
	testenv.Must(t, err)
	defer c.Close()
	ctx, keys := context.Background(), make([]string, 2400)
	for i := range keys {
		keys[i] = fmt.Sprint("key", i)
		if _, err := c.Set(ctx, keys[i], []byte(strings.Repeat("v", 1000)), cachesidecar.SetOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for restart := range 2 {
		changed := fmt.Sprint("new", restart)
		got := k.restart(0, func() {
			for _, key := range keys[:200] {
				testenv.Must(t, testenv.ErrorOf(c.Set(ctx, key, []byte(changed), cachesidecar.SetOptions{})))
			}
		})
		if got.Partitions < kv.Partitions/4 || got.Again < got.Partitions*9/10 ||
			!strings.Contains(k.hosts[0].must("stats"), " partitions served again, ") {
			t.Errorf("restart %d: %+v", restart, got)
		}
		hits := 0
		for i, key := range keys {
			it, err := c.Get(ctx, key, cachesidecar.GetOptions{Fresh: true})
			switch {
			case err == nil && i < 200 && string(it.Value) != changed:
				t.Errorf("restart %d: %s is %.20q", restart, key, it.Value)
			case err == nil:
				hits++
			}
		}
		if hits < len(keys)*97/100 { // of the restarted host's third: 91 %
			t.Errorf("restart %d: %d of %d keys are there: %+v", restart, hits, len(keys), got)
		}
	}
	if back := handedOver(k.hosts[:1]); back > int64(len(keys))*1000/30 { // a tenth of its third
		t.Errorf("%d B came back to the host, which had kept all that did not change", back)
	}
	k.end()
}

// handedOver returns how many bytes came to some hosts from others.
func handedOver(hosts []*process) (n int64) {
	for _, p := range hosts {
		var st cachesidecar.Stats
		p.document(&st, "stats")
		n += st.Cluster.Handoff.Bytes
	}
	return n
}

// TestLengthyKeptCluster restarts the hosts of a cluster in turn while apps use them. No call fails, no app reads
// another value than its last one, and none reads one of another app that was overwritten more than the bound ago.
func TestLengthyKeptCluster(t *testing.T) {
	testenv.Takes(t, 30*time.Second)
	testenv.ReadsClock(t, time.Minute, "a client waits at most as long for the next process")
	const restarts, keys, bound = 18, 40, 2 * time.Second
	type acked struct {
		value int
		at    time.Time
	}
	k := newKeptCluster(t)
	var last [3][keys]atomic.Pointer[acked]
	var calls, misses, reads atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var apps sync.WaitGroup
	defer apps.Wait()
	defer stop()
	for app := range last {
		c, err := client.Dial(ctx, client.Config{Socket: k.stores[app].socket, RequestTimeout: time.Minute})
		testenv.Must(t, err)
		t.Cleanup(func() { c.Close() })
		get := func(app, i int, least int, exact bool) {
			it, err := c.Get(context.Background(), fmt.Sprint("app", app, " ", i), cachesidecar.GetOptions{})
			switch got, _ := strconv.Atoi(string(it.Value)); {
			case errors.Is(err, cachesidecar.ErrNotFound):
				misses.Add(1)
			case err != nil, got < least, exact && got != least:
				t.Errorf("app %d, key %d: %q, %v, want %d", app, i, it.Value, err, least)
			}
		}
		apps.Go(func() {
			for n := 1; ctx.Err() == nil; n++ {
				i := n % keys
				_, err := c.Set(context.Background(), fmt.Sprint("app", app, " ", i), []byte(fmt.Sprint(n)), cachesidecar.SetOptions{})
				if err != nil {
					t.Errorf("app %d: set %d: %v", app, n, err)
				}
				last[app][i].Store(&acked{n, time.Now()})
				get(app, i, n, true)
				for other := range last {
					for i := range last[other] {
						if a := last[other][i].Load(); a != nil && time.Since(a.at) > bound {
							get(other, i, a.value, other == app)
							reads.Add(1)
						}
					}
				}
				calls.Add(1)
				time.Sleep(100 * time.Millisecond) // so that a key's last change is older than the bound now and then
			}
		})
	}
	testenv.Succeeds(t, "to have something to keep", func() error {
		if calls.Load() < 60 {
			return fmt.Errorf("%d rounds of calls", calls.Load())
		}
		return nil
	})
	for restart := range restarts {
		if got := k.restart(restart%3, func() {}); got.Cold != "" || got.Again == 0 {
			t.Errorf("restart %d: %+v", restart, got)
		}
	}
	stop()
	apps.Wait()
	if calls.Load() < restarts || reads.Load() == 0 || misses.Load() > reads.Load()/10 {
		t.Errorf("%d rounds of calls, %d reads of what others have written, %d misses", calls.Load(), reads.Load(), misses.Load())
	}
	k.end()
}
