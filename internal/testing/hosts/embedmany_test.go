package hosts

import (
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestEmbeddedMany asks for more keys than fit into a request of another host, and for
// more bytes than fit into an answer.
func TestEmbeddedMany(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 800*time.Millisecond)
	s := start(t, Config{NoSocket: true, L2Size: 64 << 20, MaxValue: 1 << 20})
	var long []string
	for i := range 20 {
		key := fmt.Sprint("long", i)
		long = append(long, key)
		if _, err := s.Set(t.Context(), "users", key, make([]byte, 1<<20), cachesidecar.SetOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if found, err := s.GetMulti(t.Context(), "users", long, cachesidecar.GetOptions{}); err != nil || len(found) != len(long) {
		t.Errorf("%d of %d long values, %v", len(found), len(long), err)
	}

	a, b := twoHosts(t, Config{})
	var keys []string
	for i := range 4 * wire.MaxKeys {
		key := fmt.Sprint("k", i)
		keys = append(keys, key)
		if _, err := a.Set(t.Context(), "users", key, []byte(key), cachesidecar.SetOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	found, err := b.GetMulti(t.Context(), "users", keys, cachesidecar.GetOptions{Fresh: true})
	if err != nil || len(found) != len(keys) {
		t.Errorf("GetMulti: %d of %d, %v", len(found), len(keys), err)
	}
	if n, err := b.DeleteMulti(t.Context(), "users", keys, cachesidecar.DeleteOptions{}); err != nil || n != len(keys) {
		t.Errorf("DeleteMulti: %d of %d, %v", n, len(keys), err)
	}
}
