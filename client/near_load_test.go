package client

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestNearLoad checks that GetOrLoad reads from the near cache, and that a value loaded
// by another client is kept there. A value that the client loads itself gets there by way
// of the sidecar.
func TestNearLoad(t *testing.T) {
	n := newNearTest(t, time.Minute)
	loads := 0
	load := func(context.Context, string) ([]byte, error) {
		loads++
		return fmt.Append(nil, "v", loads), nil
	}
	want := func(value, source string) {
		t.Helper()
		it, err := n.GetOrLoad(context.Background(), "k", load, LoadOptions{})
		if err != nil || string(it.Value) != value || it.Source != source {
			t.Fatalf("%q from %s, %v; want %q from %s", it.Value, it.Source, err, value, source)
		}
	}
	want("v1", "load")
	n.keep("k", "v1")
	want("v1", "near")
	testenv.Must(t, n.Delete(context.Background(), "k", cachesidecar.DeleteOptions{}))
	want("v2", "load")

	_, l, err := n.other.Lease(context.Background(), "q", cachesidecar.GetOptions{})
	if err != nil || l == nil {
		t.Fatal(l, err)
	}
	got := make(chan cachesidecar.Item)
	go func() {
		it, err := n.GetOrLoad(context.Background(), "q", load, LoadOptions{})
		if err != nil {
			t.Error(err)
		}
		got <- it
	}()
	testenv.Eventually(t, "a claim that waits", func() bool {
		st, err := n.other.Stats(context.Background())
		testenv.Must(t, err)
		return st.LeaseTokens.Waiting > 0
	})
	testenv.Must(t, testenv.ErrorOf(l.Fill(context.Background(), []byte("theirs"), FillOptions{})))
	if it := <-got; string(it.Value) != "theirs" || it.Source != "l2" {
		t.Errorf("%q from %s", it.Value, it.Source)
	}
	n.want("q", "theirs", "near")

	// The value was kept before this client's Fill. The sidecar told no client that it is
	// outdated, since the sidecar had evicted it.
	if _, l, err = n.Lease(context.Background(), "w", cachesidecar.GetOptions{}); err != nil || l == nil {
		t.Fatal(l, err)
	}
	k := n.near.space.key("w")
	n.near.cache.values.put(&kept{
		hash: k.Hash, namespace: k.Namespace, key: "w", value: []byte("old"), facts: kv.Facts{Version: 1}, asOf: 1,
		requestedAt: n.clock.Read().Boot, stream: n.near.cache.stream.Load(),
	})
	n.want("w", "old", "near")
	testenv.Must(t, testenv.ErrorOf(l.Fill(context.Background(), []byte("new"), FillOptions{})))
	n.want("w", "new", "l2")
}
