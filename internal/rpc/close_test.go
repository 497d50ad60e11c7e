package rpc

import (
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// lingering is a connection whose writes return a while after they have ended.
type lingering struct {
	net.Conn
	writes atomic.Int64 // under way
}

func (l *lingering) Write(b []byte) (int, error) {
	l.writes.Add(1)
	defer l.writes.Add(-1)
	n, err := l.Conn.Write(b)
	time.Sleep(time.Second)
	return n, err
}

// TestClientCloseWaits checks that Close returns only after the goroutine that writes.
func TestClientCloseWaits(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		nc := &lingering{Conn: near}
		c := newClient(nc, ClientConfig{})
		testenv.Must(t, startSet(t, c, nil, "k", 10))
		c.Flush()
		synctest.Wait()
		if nc.writes.Load() != 1 {
			t.Fatal("no write is under way")
		}
		_ = c.Close()
		if nc.writes.Load() != 0 {
			t.Error("a write is under way after Close")
		}
	})
}

// TestSentGivesBack checks that the memory of a request is given back once the request is
// written, without another call.
func TestSentGivesBack(t *testing.T) {
	conns := socketPair(t)
	b := quota.NewBudget(256 << 20)
	c := newClient(conns[0], ClientConfig{Budget: b})
	defer c.Close()
	testenv.Must(t, startSet(t, c, nil, "k", 1<<20))
	if b.Stats().Requests < 1<<20 {
		t.Errorf("%d bytes are charged while it waits", b.Stats().Requests)
	}
	var q wire.Request
	if frame, err := tryReadFrame(conns[1]); err != nil {
		t.Fatal(err)
	} else if err := wire.DecodeRequest(frame, &q); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "nothing is charged after it was written", func() bool { return b.Stats().Requests == 0 })
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.requests.sent.Empty() {
		t.Error("bytes are counted after all is written")
	}
}
