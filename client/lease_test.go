package client_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestLease does the steps of GetOrLoad by hand.
func TestLease(t *testing.T) {
	s := newScripted(t, client.Config{RequestTimeout: time.Minute, DialTimeout: time.Minute}) // for a loaded machine
	type leased struct {
		it  cachesidecar.Item
		l   *client.Lease
		err error
	}
	ask := func(ctx context.Context, o cachesidecar.GetOptions) chan leased {
		to := make(chan leased, 1)
		go func() {
			it, l, err := s.Lease(ctx, "k", o)
			to <- leased{it, l, err}
		}()
		return to
	}
	got := ask(t.Context(), cachesidecar.GetOptions{Fresh: true, StaleOK: true})
	a := s.wants(wire.OpLease)
	if a.Options != wire.Fresh|wire.StaleOK {
		t.Errorf("options %#x", a.Options)
	}
	a.answer(value("v"))
	if r := <-got; r.err != nil || r.l != nil || string(r.it.Value) != "v" {
		t.Errorf("a hit: %+v", r)
	}
	got = ask(t.Context(), cachesidecar.GetOptions{})
	s.wants(wire.OpLease).answer(wire.Reply{Status: wire.Miss, Why: wire.Degraded})
	if r := <-got; !errors.Is(r.err, cachesidecar.ErrNotFound) || r.l != nil {
		t.Errorf("degraded: %+v", r)
	}
	got = ask(t.Context(), cachesidecar.GetOptions{})
	s.wants(wire.OpLease).answer(granted)
	r := <-got
	if r.err != nil || r.l == nil || r.l.TTL != 5*time.Second {
		t.Fatalf("%+v", r)
	}
	if _, err := r.l.Fill(t.Context(), make([]byte, 2<<20), client.FillOptions{}); !errors.Is(err, cachesidecar.ErrTooLarge) {
		t.Errorf("too long a value: %v", err)
	}
	if _, err := r.l.Fill(t.Context(), nil, client.FillOptions{TTL: -1}); !errors.Is(err, cachesidecar.ErrBadRequest) {
		t.Errorf("a TTL below zero: %v", err)
	}
	go func() {
		f := s.wants(wire.OpFill)
		if f.TTLMS != 0 || len(f.Value) != 0 || f.Has(wire.Abandon) {
			t.Errorf("FILL: %+v", f.Request)
		}
		f.answer(filled)
		s.wants(wire.OpFill).answer(refused(wire.NotStored))
	}()
	if v, err := r.l.Fill(t.Context(), nil, client.FillOptions{NoExpiry: true}); v != 7 || err != nil {
		t.Errorf("Fill = %d, %v", v, err)
	}
	if err := r.l.Abandon(t.Context()); !errors.Is(err, cachesidecar.ErrNotStored) {
		t.Errorf("a second time: %v", err)
	}

	// The client repeats a LEASE whose connection breaks: the token of the first one is
	// over.
	got = ask(t.Context(), cachesidecar.GetOptions{})
	s.wants(wire.OpLease).hangUp()
	s.wants(wire.OpLease).answer(value("v"))
	if r := <-got; r.err != nil || string(r.it.Value) != "v" {
		t.Errorf("after a connection broke: %+v", r)
	}

	// The client gives back a token that arrives after its caller has left.
	ctx, leave := context.WithCancel(t.Context())
	got = ask(ctx, cachesidecar.GetOptions{})
	a = s.wants(wire.OpLease)
	leave()
	if r := <-got; !errors.Is(r.err, context.Canceled) {
		t.Errorf("who gives up gets %+v", r)
	}
	a.answer(granted)
	if f := s.wants(wire.OpFill); !f.Has(wire.Abandon) {
		t.Errorf("FILL: %+v", f.Request)
	} else {
		f.answer(wire.Reply{})
	}
}

// TestLeaseAtTheLastMoment checks that a LEASE waits 100 ms longer than it tells the
// sidecar.
func TestLeaseAtTheLastMoment(t *testing.T) {
	const told, grace = 100 * time.Millisecond, 100 * time.Millisecond
	testenv.ReadsClock(t, 200*time.Millisecond, "the client's own timeout ends the call; an answer that the test gives too late is given again")
	for {
		s := newScripted(t, client.Config{RequestTimeout: told})
		ended := make(chan error, 1)
		ask := func() {
			_, _, err := s.Lease(t.Context(), "k", cachesidecar.GetOptions{})
			ended <- err
		}
		began := time.Now()
		go ask() // ends with the answer, or without one
		a := s.wants(wire.OpLease)
		time.Sleep(time.Until(began.Add(told + 20*time.Millisecond)))
		a.answer(granted)
		err, took := <-ended, time.Since(began)
		if err != nil && took >= told+grace {
			continue // the test itself was late
		}
		if err != nil {
			t.Errorf("after %v: %v, want a token", took, err)
		}
		go ask() // ends with its timeout
		s.wants(wire.OpLease)
		if err := <-ended; !errors.Is(err, cachesidecar.ErrTimeout) {
			t.Errorf("no answer: %v", err)
		}
		return
	}
}
