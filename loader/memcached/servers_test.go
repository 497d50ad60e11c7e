package memcached

import (
	"fmt"
	"testing"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// A program that filled the servers with gomemcache finds every key on the same server.
func TestServersAsGomemcache(t *testing.T) {
	addresses := []string{"127.0.0.1:1", "127.0.0.1:2", "/socket"}
	ours := newServers(addresses)
	var theirs memcache.ServerList
	testenv.Must(t, theirs.SetServers(addresses...))
	for i := range 100 {
		key := fmt.Sprintf("key %d", i)
		got, _ := ours.PickServer(key)
		want, _ := theirs.PickServer(key)
		if got.Network() != want.Network() || got.String() != want.String() {
			t.Errorf("%s: %v, want %v", key, got, want)
		}
	}
}
