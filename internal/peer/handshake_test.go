package peer

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestHandshakeIsBounded checks that a handshake is read up to a limit. While it waits for bytes,
// other handshakes may compute; when it has them, it waits for its own slot.
func TestHandshakeIsBounded(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer near.Close()
		defer far.Close()
		slots := make(chan struct{}, 1)
		slots <- struct{}{} // its own
		g := &handshakeConn{Conn: near, head: []byte{tlsHandshake}, left: 100, slots: slots}
		got := make(chan []byte, 1)
		go func() { // ends at the limit
			b, err := io.ReadAll(g)
			if !errors.Is(err, errLong) {
				t.Errorf("after %d bytes: %v, want %v", len(b), err, errLong)
			}
			got <- b
		}()
		synctest.Wait()
		select {
		case slots <- struct{}{}:
		default:
			t.Fatal("it keeps its slot while it waits for bytes")
		}
		go func() { _, _ = far.Write(bytes.Repeat([]byte("x"), 200)) }() // ends with far
		synctest.Wait()
		if len(got) > 0 {
			t.Fatal("it has gone on without a slot")
		}
		<-slots // the other handshakes have computed
		if b := <-got; len(b) != 101 || b[0] != tlsHandshake {
			t.Errorf("%d bytes of the handshake were read, want 101", len(b))
		}
		_ = near.Close()
	})
}

// TestLetGo checks that a client that does not close its side has lingerFor to read why
// it was refused, and no more.
func TestLetGo(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	testenv.Must(t, err)
	defer ln.Close()
	far, err := net.Dial("tcp", ln.Addr().String())
	testenv.Must(t, err)
	defer far.Close()
	near, err := ln.Accept()
	testenv.Must(t, err)
	defer near.Close()
	ended := make(chan struct{})
	// Ends with its time, or with the test's connection.
	go func() { defer close(ended); closeForWriting(near) }()
	if _, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the other side: %v, want the end", err)
	}
	select {
	case <-ended:
	case <-testenv.Expired():
		t.Error("it waits for the other side")
	}
}

// TestListenerEndsTheGreediest checks that the address with the most connections loses
// them, and not the connection that has waited longest.
func TestListenerEndsTheGreediest(t *testing.T) {
	d := newListener(nil, func() *Credentials { return nil }, slog.New(slog.DiscardHandler))
	enter := func(host string) *arrival {
		near, far := net.Pipe()
		t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
		a := &arrival{nc: near, conn: near, host: host}
		if !d.enter(a) {
			t.Fatal("there is no place")
		}
		t.Cleanup(func() { a.timer.Stop() })
		return a
	}
	waits := func(a *arrival) bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, w := range d.waiting {
			if w == a {
				return true
			}
		}
		return false
	}
	alone := enter("10.0.0.1")
	greedy := enter("10.0.0.2")
	for range 3 * maxUngreeted {
		enter("10.0.0.2")
	}
	if !waits(alone) || waits(greedy) || len(d.waiting) != maxUngreeted {
		t.Errorf("the one of its address waits: %v; the oldest of many does: %v; %d wait", waits(alone), waits(greedy), len(d.waiting))
	}
}

// TestRefusedIsReadToALimit checks that what a refused connection goes on sending is read up to a limit, so that it
// has the reason, and no further.
func TestRefusedIsReadToALimit(t *testing.T) {
	nc := &endless{}
	closeForWriting(nc)
	if !nc.closed || nc.read != MaxGreeting {
		t.Errorf("closed for writing: %v; %d bytes are read, want %d", nc.closed, nc.read, MaxGreeting)
	}
}

// endless is a connection that never stops sending.
type endless struct {
	net.Conn
	closed bool
	read   int
}

func (e *endless) CloseWrite() error               { e.closed = true; return nil }
func (e *endless) SetReadDeadline(time.Time) error { return nil }

func (e *endless) Read(b []byte) (int, error) {
	if e.read > 2*MaxGreeting {
		return 0, io.EOF // the test fails, and ends
	}
	e.read += len(b)
	return len(b), nil
}
