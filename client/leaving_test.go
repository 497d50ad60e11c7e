package client_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestLeavingIsOfAllConnections checks calls while the sidecar is started again. Those
// whose connection was never made wait too: the sidecar has told another one.
func TestLeavingIsOfAllConnections(t *testing.T) {
	s := newScripted(t, client.Config{Conns: 2, RequestTimeout: time.Minute})
	s.full.Store(true)
	s.depart()
	const n = 16 // keys, of both connections
	done := make(chan error, n)
	for i := range n {
		go func() { done <- s.read(fmt.Sprint("key", i)) }() // ends with the call
	}
	testenv.Eventually(t, "more than one attempt each", func() bool { return s.shed.Load() >= 10 || len(done) > 0 })
	if len(done) > 0 {
		t.Fatalf("a call has not waited: %v", <-done)
	}
	s.full.Store(false)
	for range n {
		testenv.Should(t, <-done)
	}
}

// TestLeavingAndFewConnections checks calls after a restart, if the sidecar accepts one of
// the client's connections only: the calls of the other one use that.
func TestLeavingAndFewConnections(t *testing.T) {
	s := halfBack(t)
	for i := range 64 {
		testenv.Should(t, s.read(fmt.Sprint("key", i)))
	}
	if n := s.shed.Load(); n > 128 { // a call that waits for the other one tries it every 5 ms, for 5 s
		t.Errorf("the calls have tried the other connection %d times", n)
	}
}

// halfBack returns a sidecar that was started again, and accepts one of the client's two
// connections only.
func halfBack(t *testing.T) *scripted {
	t.Helper()
	s := newScripted(t, client.Config{Conns: 2, RequestTimeout: time.Minute})
	for i := range 64 { // both connections are made
		testenv.Must(t, s.read(fmt.Sprint("key", i)))
	}
	s.depart()
	s.depart()
	testenv.Must(t, s.read("key0"))
	s.full.Store(true)
	return s
}

// depart answers a LEAVING, and waits until the client has closed its connection.
func (s *scripted) depart() {
	s.t.Helper()
	a := <-s.leave
	a.answer(wire.Reply{})
	select {
	case <-a.ended:
	case <-testenv.Expired():
		s.t.Fatal("the client does not move on")
	}
}

// read reads a key. A miss is no error.
func (s *scripted) read(key string) error {
	_, err := s.Get(s.t.Context(), key, cachesidecar.GetOptions{})
	if errors.Is(err, cachesidecar.ErrNotFound) {
		return nil
	}
	return err
}

// TestLeavingEndsTokens checks that a load whose token is gone with its connection does not
// wait for the next sidecar, which could do nothing with the token.
func TestLeavingEndsTokens(t *testing.T) {
	s := newScripted(t, client.Config{Conns: 1, RequestTimeout: time.Minute})
	load := func(context.Context, string) ([]byte, error) {
		s.full.Store(true)
		s.depart()
		return []byte("loaded"), nil
	}
	go func() {
		s.wants(wire.OpLease).answer(wire.Reply{Status: wire.Lease, Token: []byte("t"), TTLMS: 60_000})
	}()
	it, err := s.GetOrLoad(t.Context(), "key", load, client.LoadOptions{})
	if err != nil || string(it.Value) != "loaded" {
		t.Errorf("%q, %v", it.Value, err)
	}
	if n := s.shed.Load(); n > 8 { // one that waits tries to connect every 5 ms, for 5 s
		t.Errorf("the load has tried to connect %d times", n)
	}
}
