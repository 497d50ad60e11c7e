package hosts

import (
	"flag"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/memcachedtest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// textConn is a client that speaks memcached's protocol.
type textConn struct {
	*memcachedtest.Conn
	t testing.TB
}

func dialText(t testing.TB, network, address string) *textConn {
	t.Helper()
	return &textConn{memcachedtest.Dial(t, network, address), t}
}

// TestMemcached holds one host of two to what memcached does.
func TestMemcached(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	_, _, path := textPair(t, Config{Weight: 1})
	dial := func(t *testing.T) *memcachedtest.Conn { return memcachedtest.Dial(t, "unix", path) }
	memcachedtest.Run(t, dial, true)
}

var (
	textRuns = flag.Int("memcached.runs", 20, "random conversations of TestMemcachedRandom")
	textSeed = flag.Uint64("memcached.seed", 1, "of the first one")
)

// TestMemcachedRandom holds random conversations with one host of two and with memcached.
func TestMemcachedRandom(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 6*time.Second)
	_, _, path := textPair(t, Config{Weight: 1})
	memcachedtest.Random(t, memcachedtest.Dial(t, "unix", path), memcachedtest.Memcached(t), *textRuns, *textSeed)
}
