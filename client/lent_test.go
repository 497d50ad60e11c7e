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

// TestLentConnectionFills checks that a lease that came over another slot's connection is
// filled, and given back, over that one.
func TestLentConnectionFills(t *testing.T) {
	s := halfBack(t)
	for i := range 64 {
		leases := make(chan *client.Lease, 1)
		go func() { // ends with the call
			_, l, err := s.Lease(context.Background(), fmt.Sprint("key", i), cachesidecar.GetOptions{})
			if err != nil {
				t.Error(err)
			}
			leases <- l
		}()
		s.wants(wire.OpLease).answer(granted)
		l := <-leases
		if l == nil {
			return
		}
		ended := make(chan error, 1)
		go func() { // ends with the call
			if i%2 == 0 {
				ended <- l.Abandon(context.Background())
			} else {
				_, err := l.Fill(context.Background(), []byte("value"), client.FillOptions{})
				ended <- err
			}
		}()
		select {
		case err := <-ended:
			t.Fatalf("the end of the lease of key%d was not sent: %v", i, err)
		case a := <-s.asked:
			a.answer(filled)
		}
		testenv.Should(t, <-ended)
	}
	if s.shed.Load() == 0 {
		t.Error("no connection was lent")
	}
}

// TestAttemptsShareTime checks that a second attempt of a call has what the first has left
// of the call's time.
func TestAttemptsShareTime(t *testing.T) {
	testenv.ReadsClock(t, 50*time.Millisecond, "the call's time passes before its second attempt")
	s := newScripted(t, client.Config{RequestTimeout: time.Minute, DialTimeout: time.Minute}) // also on a busy machine
	done := make(chan error, 1)
	go func() { done <- s.Ping(context.Background()) }()
	first := s.wants(wire.OpPing)
	time.Sleep(50 * time.Millisecond)
	first.hangUp()
	second := s.wants(wire.OpPing)
	if second.TimeoutMS > first.TimeoutMS-50 {
		t.Errorf("the second attempt has %d ms, the first had %d", second.TimeoutMS, first.TimeoutMS)
	}
	second.answer(wire.Reply{})
	testenv.Should(t, <-done)
}

// TestLentConnectionKeepsOrder checks writes whose own connection cannot be made. Such a
// write uses another slot's connection. The next write of its key uses that connection
// too, for as long as the first write, given up meanwhile, may still be executed: on a
// connection of its own it could overtake the first.
func TestLentConnectionKeepsOrder(t *testing.T) {
	testenv.ReadsClock(t, 100*time.Millisecond, "the client could connect again: its pause after the failed attempt must pass")
	s := newScripted(t, client.Config{Conns: 2, RequestTimeout: time.Minute})
	set := func(ctx context.Context, key, value string) chan error {
		done := make(chan error, 1)
		go func() { // ends with the call
			_, err := s.Set(ctx, key, []byte(value), cachesidecar.SetOptions{})
			done <- err
		}()
		return done
	}
	s.full.Store(true)
	ctx, giveUp := context.WithCancel(t.Context())
	var key string
	var first *asked
	var done chan error
	for i := 0; first == nil; i++ { // until the key belongs to the second connection
		key = fmt.Sprint("key", i)
		done = set(ctx, key, "1")
		if a := s.wants(wire.OpSet); s.shed.Load() > 0 {
			first = a
		} else {
			a.answer(wire.Reply{Version: 1})
			<-done
		}
	}
	giveUp()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	s.full.Store(false)
	time.Sleep(100 * time.Millisecond)
	done = set(t.Context(), key, "2")
	second := s.wants(wire.OpSet)
	if second.conn != first.conn {
		t.Error("the second write may come before the first")
	}
	first.answer(wire.Reply{Version: 1})
	second.answer(wire.Reply{Version: 2})
	testenv.Must(t, <-done)
	// The answers may still be on their way.
	testenv.Eventually(t, "the key is back on its own connection", func() bool {
		done = set(t.Context(), key, "3")
		a := s.wants(wire.OpSet)
		a.answer(wire.Reply{Version: 3})
		testenv.Must(t, <-done)
		return a.conn != first.conn
	})
}
