package client

import (
	"errors"
	"testing"
	"time"
)

// A compare-and-set that fails has told the client that there is another version,
// and so must end what is kept here: else a loop of Get and CompareAndSwap runs in
// circles until the stream has told of it.
func TestNearFailedCondition(t *testing.T) {
	n := newNearTest(t, time.Minute)
	ctx := t.Context()
	n.set(n.other, "k", "1")
	n.keep("k", "1")
	n.line.feed().gate.Lock()
	defer n.line.feed().gate.Unlock()
	n.set(n.other, "k", "2")
	for try := range 3 {
		it, err := n.Get(ctx, "k")
		if err != nil {
			t.Fatal(err)
		}
		if _, err = n.CompareAndSwap(ctx, "k", []byte("3"), it.Version); err == nil {
			return
		}
		var v *VersionError
		if !errors.As(err, &v) {
			t.Fatal(err)
		}
		t.Logf("try %d: Get has %q, version %d, from %s; CompareAndSwap says that version %d is there", try, it.Value, it.Version, it.Source, v.Version)
	}
	t.Error("CompareAndSwap with what Get returns fails again and again")
}

// Replace, Touch and Incr that say that there is nothing have told of a change too.
func TestNearNotThere(t *testing.T) {
	n := newNearTest(t, time.Minute)
	ctx := t.Context()
	n.set(n.other, "k", "1")
	n.keep("k", "1")
	n.line.feed().gate.Lock()
	defer n.line.feed().gate.Unlock()
	if _, err := n.other.Delete(ctx, "k"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Replace(ctx, "k", []byte("2")); !errors.Is(err, ErrNotFound) {
		t.Fatalf("got %v, want ErrNotFound", err)
	}
	if it, err := n.Get(ctx, "k"); err == nil {
		t.Errorf("after Replace has found nothing, Get has %q from %s", it.Value, it.Source)
	}
}
