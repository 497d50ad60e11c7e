package client_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestLentConnectionKeepsOrder checks writes whose own connection cannot be made. Such a
// write uses another slot's connection. The next write of its key uses that connection
// too, for as long as the first write, given up meanwhile, may still be executed: on a
// connection of its own it could overtake the first.
func TestLentConnectionKeepsOrder(t *testing.T) {
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
	time.Sleep(100 * time.Millisecond) // the pause before the next attempt: time itself
	done = set(t.Context(), key, "2")
	second := s.wants(wire.OpSet)
	if second.conn != first.conn {
		t.Error("the second write may come before the first")
	}
	first.answer(wire.Reply{Version: 1})
	second.answer(wire.Reply{Version: 2})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); ; { // the answers may still be on their way
		done = set(t.Context(), key, "3")
		a := s.wants(wire.OpSet)
		a.answer(wire.Reply{Version: 3})
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if a.conn != first.conn {
			break
		}
		if time.Since(began) > 30*time.Second {
			t.Fatal("it stays on the other connection")
		}
	}
}
