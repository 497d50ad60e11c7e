package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/calls"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// busyApp sets and gets its own keys through one sidecar.
type busyApp struct {
	calls, errors atomic.Int64
	late          atomic.Int64 // misses since no owner answered in time: three hosts share this machine
	longest       atomic.Int64 // time of a call, ns
	first         atomic.Pointer[string]
}

// run uses the client until ctx ends.
func (a *busyApp) run(ctx context.Context, wg *sync.WaitGroup, cl *client.Client, name string) {
	for g := range 8 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				key, value := fmt.Sprint(name, ".", g, ".", n%50), fmt.Sprint(n)
				began := time.Now()
				_, err := cl.Set(context.Background(), key, []byte(value), cachesidecar.SetOptions{})
				if err == nil {
					// Each entry is handed over: a miss counts too.
					var it cachesidecar.Item
					it, err = cl.Get(context.Background(), key, cachesidecar.GetOptions{})
					if errors.Is(err, calls.ErrDegraded) {
						a.late.Add(1)
						err = nil
					} else if err == nil && string(it.Value) != value {
						err = fmt.Errorf("GET %s: %q, want %q", key, it.Value, value)
					}
				}
				a.longest.Store(max(a.longest.Load(), int64(time.Since(began))))
				if a.calls.Add(1); err != nil {
					a.errors.Add(1)
					why := err.Error()
					a.first.CompareAndSwap(nil, &why)
				}
				time.Sleep(time.Millisecond) // a rate that leaves the processor to the sidecars
			}
		})
	}
}

// TestLengthyRollingRestart restarts one of three hosts under load, by SIGTERM and by "drain
// --stop". No call of any app fails, also not on the host itself, where calls wait
// meanwhile: with the socket that systemd keeps, and also if the socket goes with the
// process. Then calls wait no longer than there is no socket. That each read finds an owner in
// time is TestVirtualDrain's and TestVirtualLeaveServes's.
func TestLengthyRollingRestart(t *testing.T) {
	testenv.Takes(t, 20*time.Second)
	testenv.ReadsClock(t, 4*time.Second, "calls may wait while the socket is away, and little longer: a client waits for 5 s")
	t.Run("systemd keeps the socket", func(t *testing.T) {
		rollingRestart(t, kept(t))
	})
	t.Run("the socket goes with the process", func(t *testing.T) {
		socket := filepath.Join(tempDir(t), "s")
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		without := make(chan time.Duration, 1)
		go func() { without <- unserved(ctx, socket) }() // ends with ctx
		longest := rollingRestart(t, func(flags ...string) *process { return runSidecarAt(t, socket, flags...) })
		stop()
		if gap := <-without; gap == 0 || longest > gap+4*time.Second { // less than the 5 s for which a client waits
			t.Errorf("a call took %v, the socket was away for %v", longest, gap)
		}
	})
}

// kept returns a function that starts a host at a socket that stays, as systemd does.
func kept(t *testing.T) func(flags ...string) *process {
	socket := filepath.Join(tempDir(t), "s")
	ln := keeps(t, "unix", socket)
	return func(flags ...string) *process {
		p := launch(t, passing(t, []net.Listener{ln}, "", flags...))
		p.socket = socket
		p.waitFor("the sidecar to serve", p.log, func(log string) bool { return strings.Contains(log, `"msg":"serving"`) })
		return p
	}
}

// TestLengthyRestartsMeetNewClients: no write of a client that has just connected fails while the
// sidecar is restarted, if systemd keeps the socket. A sidecar that ends has said HELLO to
// some, and has not heard that they want to be told.
func TestLengthyRestartsMeetNewClients(t *testing.T) {
	testenv.Takes(t, 10*time.Second)
	start := kept(t)
	p := start()
	socket := p.socket
	end := func(p *process) {
		p.signal(syscall.SIGTERM)
		p.ends(exitDone)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var calls sync.WaitGroup
	var done atomic.Int64
	for range 6 {
		calls.Go(func() {
			for ctx.Err() == nil {
				cfg := client.Config{Socket: socket, Conns: 1, DialTimeout: time.Minute, RequestTimeout: time.Minute}
				c, err := client.Dial(t.Context(), cfg)
				if err == nil {
					_, err = c.Set(t.Context(), "k", []byte("v"), cachesidecar.SetOptions{})
					c.Close()
				}
				if err != nil {
					t.Error(err)
				}
				done.Add(1)
			}
		})
	}
	for range 40 {
		before := done.Load() // a client may meet a few ends in a row, and not more
		testenv.Eventually(t, "some writes", func() bool { return done.Load() >= before+6 })
		end(p)
		p = start()
	}
	stop()
	calls.Wait()
	t.Logf("%d writes", done.Load())
	end(p)
}

// unserved returns the longest time for which nothing accepts connections at a socket,
// until ctx ends. It counts from the first connection on.
func unserved(ctx context.Context, socket string) (longest time.Duration) {
	var last time.Time
	for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
		c, err := net.Dial("unix", socket)
		if err != nil {
			continue
		}
		c.Close()
		if now := time.Now(); !last.IsZero() {
			longest = max(longest, now.Sub(last))
		}
		last = time.Now()
	}
	return longest
}

// rollingRestart ends the middle one of three hosts three times under load, and begins
// it again. It returns the longest time of a call through that host.
func rollingRestart(t *testing.T, begin func(flags ...string) *process) (longest time.Duration) {
	ports, err := freePorts(6)
	testenv.Must(t, err)
	var join []string
	for i := range 3 {
		join = append(join, loopback(ports[2*i]))
	}
	flags := func(i int) []string {
		return []string{
			"--node", fmt.Sprint("host", i), "--l2-size", "16MiB", "--bind", join[i],
			"--peer-bind", loopback(ports[2*i+1]), "--join", strings.Join(join, ","),
		}
	}
	list := []*process{runSidecar(t, flags(0)...), begin(flags(1)...), runSidecar(t, flags(2)...)}
	whole(t, list...)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var wg sync.WaitGroup
	apps := make([]busyApp, len(list))
	for i, p := range list {
		cl, err := client.Dial(ctx, client.Config{Socket: p.socket, DialTimeout: testenv.Patience, RequestTimeout: testenv.Patience})
		testenv.Must(t, err)
		defer cl.Close()
		apps[i].run(ctx, &wg, cl, fmt.Sprint("app", i))
	}
	for i := range 3 {
		before := apps[1].calls.Load()
		testenv.Eventually(t, "load", func() bool { return apps[1].calls.Load() > before+200 })
		if p := list[1]; i%2 == 0 {
			p.signal(syscall.SIGTERM)
		} else {
			p.must("drain", "--stop")
		}
		list[1].ends(exitDone)
		list[1] = begin(flags(1)...)
		whole(t, list...)
	}
	stop()
	wg.Wait()
	for i := range apps {
		a := &apps[i]
		t.Logf("host%d: %d rounds, the longest took %v", i, a.calls.Load(), time.Duration(a.longest.Load()))
		if n := a.errors.Load(); n > 0 {
			t.Errorf("host%d: %d of %d rounds failed, the first: %s", i, n, a.calls.Load(), *a.first.Load())
		}
		if n := a.calls.Load(); n < 100 || a.late.Load() > n/2 {
			t.Errorf("host%d: in %d of %d rounds no owner answered in time", i, a.late.Load(), n)
		}
	}
	return time.Duration(apps[1].longest.Load())
}
