package client

import (
	"errors"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestNearFailedCondition checks that a failed compare-and-set removes the kept value,
// since it has shown that there is another version. Else a loop of Get and CompareAndSwap
// would fail until the stream reports the change.
func TestNearFailedCondition(t *testing.T) {
	n := newNearTest(t, time.Minute)
	ctx := t.Context()
	n.set(n.other, "k", "1")
	n.keep("k", "1")
	n.line.feed().gate.Lock()
	defer n.line.feed().gate.Unlock()
	n.set(n.other, "k", "2")
	for try := range 3 {
		it, err := n.Get(ctx, "k", cachesidecar.GetOptions{})
		testenv.Must(t, err)
		if _, err = n.CompareAndSwap(ctx, "k", []byte("3"), it.Version, cachesidecar.SetOptions{}); err == nil {
			return
		}
		var v *cachesidecar.VersionError
		if !errors.As(err, &v) {
			t.Fatal(err)
		}
		t.Logf("try %d: Get has %q, version %d, from %s; CompareAndSwap says that version %d is there", try, it.Value, it.Version, it.Source, v.Version)
	}
	t.Error("CompareAndSwap with what Get returns fails again and again")
}

// TestNearNotThere checks that Replace, Touch and Incr remove the kept value too if they
// return ErrNotFound.
func TestNearNotThere(t *testing.T) {
	n := newNearTest(t, time.Minute)
	ctx := t.Context()
	n.set(n.other, "k", "1")
	n.keep("k", "1")
	n.line.feed().gate.Lock()
	defer n.line.feed().gate.Unlock()
	testenv.Must(t, n.other.Delete(ctx, "k", cachesidecar.DeleteOptions{}))
	if _, err := n.Replace(ctx, "k", []byte("2"), cachesidecar.SetOptions{}); !errors.Is(err, cachesidecar.ErrNotFound) {
		t.Fatalf("got %v, want ErrNotFound", err)
	}
	if it, err := n.Get(ctx, "k", cachesidecar.GetOptions{}); err == nil {
		t.Errorf("after Replace has found nothing, Get has %q from %s", it.Value, it.Source)
	}
}
