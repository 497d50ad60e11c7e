package sidecar

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestMemcachedReload changes the rules and the namespaces under a connection that stands. Each
// next command goes by the new ones.
func TestMemcachedReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m")
	r := newReloaded(t, Config{Memcached: path, MemcachedDelimiter: ":", Namespaces: map[string]Namespace{"open": {}}})
	c := dialText(t, "unix", path)
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
	c.Ask("get open:k", "END") // the prefix names no namespace any more: this is a key of the default one
	c.Ask("set open:k 0 0 1\r\ny", "STORED")
	r.apply(func(c *Config) { c.Namespaces["open"] = Namespace{} })
	c.Ask("get open:k", "VALUE open:k 0 1", "x", "END")
}
