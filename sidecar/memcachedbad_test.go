package sidecar

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/memcachedtest"
)

// TestMemcachedReload changes the rules and the namespaces under a connection that stands. Each
// next command goes by the new ones.
func TestMemcachedReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m")
	r := newReloaded(t, Config{Memcached: path, MemcachedDelimiter: ":", Namespaces: map[string]Namespace{"open": {}}})
	c := memcachedtest.Dial(t, "unix", path)
	c.Ask("set open:k 0 0 1\r\nx", "STORED")
	c.Ask("get open:k", "VALUE open:k 0 1", "x", "END")
	r.apply(func(c *Config) {
		c.Access = map[string]Grants{"open": {Read: []string{"memcached"}, Write: []string{"0"}}}
	})
	c.Ask("get open:k", "VALUE open:k 0 1", "x", "END")
	for _, change := range []string{"set open:k 0 0 1\r\ny", "delete open:k", "incr open:k 1", "touch open:k 1"} {
		c.Send(change + "\r\n")
		if line := c.Line(); !strings.HasPrefix(line, "CLIENT_ERROR") {
			t.Errorf("%q: %q", change, line)
		}
	}
	c.Ask("get open:k", "VALUE open:k 0 1", "x", "END")
	r.apply(func(c *Config) { c.Access = map[string]Grants{"open": {Read: []string{"0"}, Write: []string{"0"}}} })
	for _, read := range []string{"get open:k", "gets open:k a", "mg open:k v", "me open:k"} {
		if c.Send(read + "\r\nmn\r\n"); strings.Contains(c.UntilNoop(), "x|") {
			t.Errorf("%q shows the value", read)
		}
	}
	r.apply(func(c *Config) { c.Access = nil; delete(c.Namespaces, "open") })
	for _, command := range []string{"get open:k", "set open:k 0 0 1\r\ny"} {
		c.Send(command + "\r\n")
		if line := c.Line(); !strings.HasPrefix(line, "CLIENT_ERROR") || !strings.Contains(line, `"open"`) {
			t.Errorf("%q of a namespace that is no more: %q", command, line)
		}
	}
	c.Ask("get k", "END")
	r.apply(func(c *Config) { c.Namespaces["open"] = Namespace{} })
	c.Ask("get open:k", "VALUE open:k 0 1", "x", "END")
}

// TestMemcachedNamesStay reloads with other settings of what keys name. They wait for a restart:
// each key names what it has named.
func TestMemcachedNamesStay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m")
	r := newReloaded(t, Config{Memcached: path, MemcachedDelimiter: ":", Namespaces: map[string]Namespace{"open": {}}})
	c := memcachedtest.Dial(t, "unix", path)
	c.Ask("set open:k 0 0 1\r\nx\r\nset k 0 0 1\r\ny\r\nset open/k 0 0 1\r\nz", "STORED", "STORED", "STORED")
	_, restart := r.apply(func(c *Config) { c.MemcachedDelimiter, c.MemcachedNamespace = "/", "open" })
	for _, setting := range []string{"memcached_delimiter", "memcached_namespace"} {
		if !slices.ContainsFunc(restart, func(line string) bool { return strings.Contains(line, setting) }) {
			t.Errorf("no word of a restart for %s: %q", setting, restart)
		}
	}
	for _, c := range []*memcachedtest.Conn{c, memcachedtest.Dial(t, "unix", path)} {
		c.Ask("get open:k k open/k", "VALUE open:k 0 1", "x", "VALUE k 0 1", "y", "VALUE open/k 0 1", "z", "END")
	}
}
