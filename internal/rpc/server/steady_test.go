package server

import (
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/peertest"
	"github.com/cachesidecar/cachesidecar/internal/testing/polled"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/transport"
)

// servePolled serves one connection in virtual time, over TLS or not.
func servePolled(t *testing.T, h Handler, l Limits, over string) (nc net.Conn, c *Conn, below *polled.Conn, ended chan error) {
	t.Helper()
	near, far := polled.Pair(t)
	nc = near
	var there net.Conn = far
	if over == "TLS" {
		a := peertest.NewAuthority(t, "one")
		client := tls.Client(near, &tls.Config{InsecureSkipVerify: true})
		server := transport.Secure(far, func(below net.Conn) *tls.Conn {
			return tls.Server(below, &tls.Config{Certificates: []tls.Certificate{a.Certificate(t, []string{"b"})}})
		})
		done := make(chan error, 1)
		go func() { done <- client.Handshake() }()
		testenv.Must(t, errors.Join(server.Handshake(), <-done))
		nc, there = client, server
	}
	c = connOf(there, newShared(l), "uid 0")
	c.handler = h
	ended = make(chan error, 1)
	go func() { ended <- c.serve() }()
	return nc, c, far, ended
}

// TestSteadyReader checks that a client that takes an answer slowly gets all of it, even
// if the system is late to report that it does. The client is cut off once it takes
// nothing.
func TestSteadyReader(t *testing.T) {
	testenv.Takes(t, time.Second/2)
	for _, tc := range []struct {
		name, over string
		hears      time.Duration
		end        time.Duration // at most, after the last bytes were taken
	}{
		{"socket", "", 0, 1010 * time.Millisecond},
		{"socket, told late", "", time.Hour, 2 * time.Second},
		{"TLS", "TLS", 0, 1010 * time.Millisecond},
		{"TLS, told late", "TLS", time.Hour, 2 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				const size = 3_000_000
				nc, c, below, ended := servePolled(t, &echoHandler{echo: newEcho()}, Limits{WriteTimeout: time.Second}, tc.over)
				below.Set(tc.hears, nil)
				if _, err := nc.Write(append(getFrame(1, "big 3000000"), getFrame(2, "big 3000000")...)); err != nil {
					t.Fatal(err)
				}
				testenv.Must(t, polled.ReadSlowly(nc, size+size/2, 64<<10, 900*time.Millisecond))
				last := time.Now().Add(-900 * time.Millisecond)
				if err := <-ended; !errors.Is(err, ErrSlowReader) || c.server.stats().SlowReaders != 1 {
					t.Errorf("ended with %v", err)
				}
				if took := time.Since(last); took > tc.end {
					t.Errorf("it was cut off after %v", took)
				}
			})
		})
	}
}

// TestSteadyPipe checks the same for a connection that does not show whether a write
// waits.
func TestSteadyPipe(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		nc, _, ended := servePipe(t, &echoHandler{echo: newEcho()}, Limits{WriteTimeout: time.Second})
		if _, err := nc.Write(append(getFrame(1, "big 3000000"), getFrame(2, "big 3000000")...)); err != nil {
			t.Fatal(err)
		}
		if err := polled.ReadSlowly(nc, 4_500_000, 64<<10, 900*time.Millisecond); err != nil {
			t.Error(err)
		}
		began := time.Now()
		if err := <-ended; !errors.Is(err, ErrSlowReader) {
			t.Errorf("ended with %v", err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it was cut off after %v", took)
		}
	})
}

// TestKilledAsItBlocks checks that a connection that is killed while its writer begins to
// wait ends at once, however steadily its answers are taken.
func TestKilledAsItBlocks(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		nc, c, below, ended := servePolled(t, &echoHandler{echo: newEcho()}, Limits{}, "")
		below.Set(0, c.Kill)
		if _, err := nc.Write(getFrame(1, "big 3000000")); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		taken := make(chan error)
		go func() { taken <- polled.ReadSlowly(nc, 3_000_000, 64<<10, 900*time.Millisecond) }()
		<-ended
		if took := time.Since(began); took > time.Second {
			t.Errorf("it has ended after %v", took)
		}
		<-taken
	})
}
