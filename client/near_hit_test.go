package client_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// nearHit returns a function that reads a key from the near cache.
func nearHit(t testing.TB, key string) (get func() cachesidecar.Item) {
	c := dial(t, client.Config{NearCache: client.NearCache{Bytes: 1 << 20, Bound: time.Minute}})
	ctx := context.Background()
	testenv.Must(t, testenv.ErrorOf(c.Set(ctx, key, make([]byte, 100), cachesidecar.SetOptions{})))
	get = func() cachesidecar.Item {
		it, err := c.Get(ctx, key, cachesidecar.GetOptions{})
		testenv.Must(t, err)
		return it
	}
	testenv.Eventually(t, "it is kept", func() bool { return get().Source == "near" })
	return get
}

// TestNearHitAllocations checks that a hit allocates the caller's value and nothing else.
func TestNearHitAllocations(t *testing.T) {
	get := nearHit(t, strings.Repeat("k", 100))
	source := ""
	testenv.Allocates(t, "a hit", 1, 1000, func() { source = get().Source })
	if source != "near" {
		t.Errorf("a hit from %q", source)
	}
}

func BenchmarkNearHit(b *testing.B) {
	get := nearHit(b, "user:42")
	b.ReportAllocs()
	for b.Loop() {
		get()
	}
}
