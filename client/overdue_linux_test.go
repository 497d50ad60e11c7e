package client_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// bootClock returns a sidecar's boot clock, shifted by off, with the given id.
func bootClock(id string, off time.Duration) func() wire.BootClock {
	clock := kv.NewSystemClock()
	return func() wire.BootClock {
		return wire.BootClock{ID: id, NowNS: uint64(clock.Read().Boot + off)}
	}
}

// TestWritesSayWhenTheyAreGivenUp checks that each write carries the time at which it is
// given up, by its timeout or its context, on the boot clock. Requests that may be
// executed late do not carry it.
func TestWritesSayWhenTheyAreGivenUp(t *testing.T) {
	clock := kv.NewSystemClock()
	s := newScriptedAt(t, client.Config{RequestTimeout: 2 * testenv.Patience}, bootClock(kv.BootClockID(), 0))
	type call func(ctx context.Context, l *client.Lease) error
	lease := func() *client.Lease {
		t.Helper()
		got := make(chan *client.Lease, 1)
		go func() { // ends with the answer
			_, l, _ := s.Lease(t.Context(), "k", cachesidecar.GetOptions{})
			got <- l
		}()
		a := s.wants(wire.OpLease)
		if a.UntilNS != 0 {
			t.Errorf("a LEASE is given up at %d", a.UntilNS)
		}
		a.answer(granted)
		return <-got
	}
	for _, test := range []struct {
		name string
		op   wire.Op
		do   call
		late bool // may be executed late
	}{
		{"set", wire.OpSet, func(ctx context.Context, _ *client.Lease) error {
			_, err := s.Set(ctx, "k", nil, cachesidecar.SetOptions{})
			return err
		}, false},
		{"add", wire.OpSet, func(ctx context.Context, _ *client.Lease) error {
			_, err := s.Add(ctx, "k", nil, cachesidecar.SetOptions{})
			return err
		}, false},
		{"cas", wire.OpSet, func(ctx context.Context, _ *client.Lease) error {
			_, err := s.CompareAndSwap(ctx, "k", nil, 1, cachesidecar.SetOptions{})
			return err
		}, false},
		{"touch", wire.OpTouch, func(ctx context.Context, _ *client.Lease) error {
			return s.Touch(ctx, "k", cachesidecar.TouchOptions{})
		}, false},
		{"incr", wire.OpIncr, func(ctx context.Context, _ *client.Lease) error {
			_, err := s.Incr(ctx, "k", 1, cachesidecar.IncrOptions{})
			return err
		}, false},
		{"delete", wire.OpDelete, func(ctx context.Context, _ *client.Lease) error {
			return s.Delete(ctx, "k", cachesidecar.DeleteOptions{})
		}, false},
		{"fill", wire.OpFill, func(ctx context.Context, l *client.Lease) error {
			_, err := l.Fill(ctx, nil, client.FillOptions{})
			return err
		}, false},
		{"abandon", wire.OpFill, func(ctx context.Context, l *client.Lease) error { return l.Abandon(ctx) }, true},
		{"flush", wire.OpFlush, func(ctx context.Context, _ *client.Lease) error { return s.Flush(ctx, cachesidecar.FlushOptions{}) }, true},
	} {
		for _, timeout := range []time.Duration{2 * testenv.Patience, testenv.Patience} {
			var l *client.Lease
			if test.op == wire.OpFill {
				l = lease()
			}
			before := clock.Read().Boot // the time of the context begins after this
			ctx := t.Context()
			if timeout == testenv.Patience { // otherwise it is the client's RequestTimeout
				ctx = testenv.Context(t)
			}
			done := make(chan error, 1)
			go func() { done <- test.do(ctx, l) }() // ends with the answer
			a := s.wants(test.op)
			after := clock.Read().Boot
			got := time.Duration(a.UntilNS)
			switch {
			case test.late && got != 0:
				t.Errorf("%s is given up at %v", test.name, got)
			case !test.late && (got < before+timeout-time.Second || got >= after+timeout):
				t.Errorf("%s is given up %v after it began, want %v", test.name, got-before, timeout)
			}
			a.answer(refused(wire.Busy))
			if err := <-done; !errors.Is(err, cachesidecar.ErrBusy) {
				t.Errorf("%s: %v", test.name, err)
			}
		}
	}
}

// TestMomentsNeedOneClock checks that the client sends no times of its boot clock to a
// sidecar with another boot clock.
func TestMomentsNeedOneClock(t *testing.T) {
	id := kv.BootClockID()
	for name, boot := range map[string]func() wire.BootClock{
		"offers none":       func() wire.BootClock { return wire.BootClock{} },
		"another machine":   bootClock("another", 0),
		"a clock no name":   bootClock("", 0),
		"behind":            bootClock(id, -time.Minute),
		"ahead":             bootClock(id, time.Minute),
		"an absurd reading": func() wire.BootClock { return wire.BootClock{ID: id, NowNS: 1 << 63} },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScriptedAt(t, client.Config{}, boot)
			done := make(chan error, 1)
			go func() { // ends with the answer
				_, err := s.Set(context.Background(), "k", nil, cachesidecar.SetOptions{})
				done <- err
			}()
			a := s.wants(wire.OpSet)
			if a.UntilNS != 0 || a.TimeoutMS == 0 {
				t.Errorf("the SET is given up at %d, after %d ms", a.UntilNS, a.TimeoutMS)
			}
			a.answer(filled)
			testenv.Should(t, <-done)
		})
	}
}
