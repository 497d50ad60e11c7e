package peer

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/testing/peertest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// deaf is an echo that stops serving and reading after its first call, until stuck is
// closed.
type deaf struct {
	echo
	stuck *atomic.Pointer[chan struct{}]
}

func (d *deaf) Serve(c *server.Conn, frames [][]byte) error {
	if stuck := d.stuck.Swap(nil); stuck != nil {
		<-*stuck
	}
	return d.echo.Serve(c, frames)
}

// deafNode returns a pool with a connection to node b, which is deaf while stuck is set.
func deafNode(t *testing.T) (p *Pool, stuck *atomic.Pointer[chan struct{}]) {
	ended := new(atomic.Int64)
	stuck = new(atomic.Pointer[chan struct{}])
	one, b := peertest.NewAuthority(t, "one"), identity("b", 2)
	s := serveKeys(t, b, newKeys(t, "b", one).get, nil, func(from kv.Process, p Purpose) server.Handler {
		return &deaf{echo{from, p, ended}, stuck}
	})
	p = newKeyPool(t, identity("a", 1), newKeys(t, "a", one))
	p.Set(nodeB, s.address)
	if _, err := get(t, p, nodeB, Call); err != nil {
		t.Fatal(err)
	}
	return p, stuck
}

// longCalls begins 24 calls with long requests, which is more than can be on its way. It
// passes the end of each to ended.
func longCalls(p *Pool, timeout time.Duration, ended func(error)) *sync.WaitGroup {
	var calls sync.WaitGroup
	for range 24 {
		calls.Go(func() {
			var a Answer
			defer a.Release()
			q := &wire.Request{Op: wire.OpSet, Key: []byte("k"), Value: make([]byte, 1<<20)}
			ended(p.Do(context.Background(), nodeB, Call, timeout, q, &a))
		})
	}
	return &calls
}

// TestRenewStuck checks that calls do not wait for the end of a connection whose other
// side does not read.
func TestRenewStuck(t *testing.T) {
	testenv.Takes(t, 3*time.Second)
	testenv.ReadsClock(t, 3*renewTimeout, "calls go on before the stuck connection has ended, after 10 s; TLS holds a mutex meanwhile, which stops virtual time")
	p, stuck := deafNode(t)
	old, free := p.Live(nodeB, Call), make(chan struct{})
	defer close(free)
	stuck.Store(&free)
	longCalls(p, time.Second, func(error) {}).Wait()
	if old.Err() != nil {
		t.Fatalf("the other side reads: %v", old.Err())
	}
	begun := time.Now()
	p.Renew()
	testenv.Eventually(t, "calls wait", func() bool { return p.Live(nodeB, Call) == nil })
	var a Answer
	err := p.Do(context.Background(), nodeB, Call, time.Minute, &wire.Request{Op: wire.OpGet, Key: []byte("quick")}, &a)
	a.Release()
	if took := time.Since(begun); err != nil || old.Err() != nil && took > 3*renewTimeout {
		t.Errorf("a call beside a connection whose other side does not read: %v after %v; that has ended: %v", err, took, old.Err())
	}
}

// TestRenewLong checks that no call fails if its long request waits to be sent while
// the connection is replaced.
func TestRenewLong(t *testing.T) {
	p, stuck := deafNode(t)
	p.renewTimeout = testenv.Patience
	old, free := p.Live(nodeB, Call), make(chan struct{})
	stuck.Store(&free)
	defer longCalls(p, time.Minute, func(err error) {
		if err != nil {
			t.Error(err)
		}
	}).Wait()
	testenv.Eventually(t, "all calls are under way", func() bool { return old.InFlight() == 24 })
	p.Renew()
	testenv.Eventually(t, "it retires", old.Retiring)
	close(free)
	testenv.Eventually(t, "another connection", func() bool { return p.Live(nodeB, Call) != nil })
	if p.Live(nodeB, Call) == old {
		t.Error("it was not replaced")
	}
}

// TestLeaveWhileRenewed checks that no call fails if its process says goodbye in the middle
// of a renewal, and that a call that waits for the new connection is certainly not executed.
func TestLeaveWhileRenewed(t *testing.T) {
	testenv.ReadsClock(t, 3*settleFor, "no call fails while the renewal goes on")
	p, stuck := deafNode(t)
	p.renewTimeout = testenv.Patience
	old, free := p.Live(nodeB, Call), make(chan struct{})
	stuck.Store(&free)
	calls := longCalls(p, time.Minute, func(err error) {
		if err != nil {
			t.Error(err)
		}
	})
	testenv.Eventually(t, "all calls are under way", func() bool { return old.InFlight() == 24 })
	p.Renew()
	testenv.Eventually(t, "calls wait", func() bool { return p.Live(nodeB, Call) == nil })
	waits := make(chan error)
	go func() {
		_, err := get(t, p, nodeB, Call)
		waits <- err
	}()
	time.Sleep(settleFor / 5) // for that call
	p.Leave(nodeB)
	time.Sleep(3 * settleFor) // the renewal goes on
	close(free)
	calls.Wait()
	if err := <-waits; err != nil && !NotExecuted(err) {
		t.Errorf("a call that waits for the new connection: %v", err)
	}
	<-old.Done()
}

// TestVirtualManyWait checks that thousands of waiting calls do not delay a call that need not wait.
func TestVirtualManyWait(t *testing.T) {
	const many = 4095
	var ended, served, kept atomic.Int64
	inLab(t, func(l *lab) {
		p := l.pool("10.0.0.1", nil)
		for range many {
			go func() { // ends with its answer
				if _, err := get(l.T, p, nodeB, Call); err != nil {
					l.Error(err)
				}
			}()
		}
		synctest.Wait()
		time.Sleep(time.Second)
		if n := served.Load(); n != many {
			l.Errorf("%d of %d wait at the other side", n, many)
		}
		begun := time.Now()
		var a Answer
		err := p.Do(context.Background(), nodeB, Call, 4*time.Second, &wire.Request{Op: wire.OpGet, Key: []byte("quick")}, &a)
		a.Release()
		if took := time.Since(begun); err != nil || took > 100*time.Millisecond {
			l.Errorf("%v after %v", err, took)
		}
		time.Sleep(10 * time.Second)
	}, inPlain, func(l *lab) {
		l.handler = func(from kv.Process, p Purpose) server.Handler {
			return &slow{echo: echo{from, p, &ended}, wait: 4 * time.Second, served: &served, kept: &kept}
		}
	})
}
