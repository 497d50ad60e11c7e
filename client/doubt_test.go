package client_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

func set(s *scripted) error {
	_, err := s.Set(context.Background(), "k", []byte("v"), cachesidecar.SetOptions{})
	return err
}

// TestHangingSidecarCostsOneTimeout checks that after a call without an answer, and a PING
// without one, calls fail without being sent, until the sidecar answers the PING.
func TestHangingSidecarCostsOneTimeout(t *testing.T) {
	const callers = 50
	s := newScripted(t, client.Config{RequestTimeout: 200 * time.Millisecond})
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			if err := set(s); !errors.Is(err, cachesidecar.ErrTimeout) && !errors.Is(err, cachesidecar.ErrUnavailable) {
				t.Errorf("without an answer: %v", err)
			}
		})
	}
	wg.Wait()
	a := <-s.asked
	for ; a.Op == wire.OpSet; a = <-s.asked {
	}
	if a.Op != wire.OpPing {
		t.Fatalf("after calls without an answer the client sends %s, want PING", a.Op)
	}
	for range callers {
		if err := set(s); !errors.Is(err, cachesidecar.ErrUnavailable) || errors.Is(err, cachesidecar.ErrTimeout) {
			t.Fatalf("while the PING has no answer: %v, want ErrUnavailable", err)
		}
	}
	if n := len(s.asked); n > 0 {
		t.Fatalf("while the PING has no answer, %d requests are sent, the first is %s", n, (<-s.asked).Op)
	}
	a.answer(wire.Reply{})
	resumes(t, s)
}

// resumes answers all SETs from now on, and checks that they are sent again.
func resumes(t *testing.T, s *scripted) {
	t.Helper()
	ctx := testenv.Context(t)
	s.answers(ctx, wire.OpSet, wire.Reply{Version: 1})
	testenv.Eventually(t, "call that is answered", func() bool {
		_, err := s.Set(ctx, "k", []byte("v"), cachesidecar.SetOptions{})
		return err == nil
	})
}

// TestSlowAnswerLeavesOthersAlone checks that a call without an answer in its time is no
// matter to others, if the sidecar answers a PING.
func TestSlowAnswerLeavesOthersAlone(t *testing.T) {
	s := newScripted(t, client.Config{RequestTimeout: 20 * time.Millisecond})
	for range 3 {
		if err := set(s); !errors.Is(err, cachesidecar.ErrTimeout) {
			t.Fatalf("without an answer: %v, want ErrTimeout", err)
		}
		s.wants(wire.OpSet)
		s.wants(wire.OpPing).answer(wire.Reply{})
		testenv.Eventually(t, "no doubt", func() bool { return !s.Doubted() })
	}
	ctx, cancel := context.WithCancel(testenv.Context(t))
	failed := make(chan error, 1)
	go func() {
		_, err := s.Set(ctx, "k", []byte("v"), cachesidecar.SetOptions{})
		failed <- err
	}()
	s.wants(wire.OpSet)
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) || s.Doubted() {
		t.Fatalf("cancelled: %v, in doubt %t; want context.Canceled and no doubt", err, s.Doubted())
	}
	resumes(t, s)
}
