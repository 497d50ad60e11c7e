package hosts

import (
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// textPair starts two hosts. The second one has an endpoint for memcached's protocol.
func textPair(t *testing.T, cfg Config) (a, b *host, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "m")
	a = &host{Sidecar: start(t, Config{Node: "a", Bind: "127.0.0.1:0", L1Size: 1 << 20, L2Size: 32 << 20})}
	cfg.Node, cfg.Bind, cfg.L1Size, cfg.Memcached, cfg.Join = "b", "127.0.0.1:0", 1<<20, path, []string{a.engine.Node.GossipAddress()}
	b = &host{Sidecar: start(t, cfg)}
	settled(t, a, b)
	return a, b, path
}

// TestMemcachedManyKeysAccess asks for many keys at once, one of them in a namespace that the
// client may not read. A key of another host before it changes nothing.
func TestMemcachedManyKeysAccess(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	_, b, path := textPair(t, Config{
		MemcachedDelimiter: ":", MemcachedNamespace: "open",
		Namespaces: map[string]Namespace{"secret": {}, "open": {}},
		Access:     map[string]Grants{"secret": {Read: []string{"0"}, Write: []string{"0"}}, "open": {Write: []string{"memcached"}}},
	})
	for _, owned := range []bool{true, false} {
		key := keysIn(b.Sidecar, "open", "k", owned, 1)[0]
		for _, hidden := range append(keysIn(b.Sidecar, "secret", "s", true, 1), keysIn(b.Sidecar, "secret", "s", false, 1)...) {
			writeSecret(t, b, hidden)
			c := dialText(t, "unix", path)
			c.Ask("set "+key+" 0 0 1\r\nx", "STORED")
			c.Send("get " + key + " secret:" + hidden + "\r\nmn\r\n")
			for line := ""; line != "MN"; {
				if line = c.Line(); strings.Contains(line, "hidden") || strings.Contains(line, "read unix") {
					t.Fatalf("after a key of this host %v: %q", owned, line)
				}
			}
		}
	}
}

// TestMemcachedGetLong gets so many long values in one command that they do not fit into one MGET.
// All are answered, in the order of the keys, and the commands behind come after them.
func TestMemcachedGetLong(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	_, b, path := textPair(t, Config{L2Size: 64 << 20})
	c := dialText(t, "unix", path)
	keys := append(keysIn(b.Sidecar, "default", "there", false, 12), keysIn(b.Sidecar, "default", "here", true, 12)...)
	value := strings.Repeat("v", 1_000_000)
	for _, key := range keys {
		c.Ask(fmt.Sprintf("set %s 0 0 %d\r\n%s", key, len(value), value), "STORED")
	}
	c.Send("get nope " + strings.Join(keys, " ") + " " + keys[0] + "\r\ndelete " + keys[1] + "\r\nmn\r\n")
	for _, key := range append(keys, keys[0]) {
		if got, want := c.Line(), fmt.Sprintf("VALUE %s 0 %d", key, len(value)); got != want {
			t.Fatalf("%.100q, want %q", got, want)
		}
		if c.Line() != value {
			t.Fatalf("%s has another value", key)
		}
	}
	c.Ask("mn", "END", "DELETED", "MN", "MN")
}

// TestMemcachedGetLongParts gets long values of three namespaces in one command: more than the
// memory of one connection's answers, for parts that are asked for at once.
func TestMemcachedGetLongParts(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	_, b, path := textPair(t, Config{L2Size: 64 << 20, MemcachedDelimiter: ":", Namespaces: map[string]Namespace{"x": {}, "y": {}, "z": {}}})
	c := dialText(t, "unix", path)
	value := strings.Repeat("v", 1_000_000)
	var keys []string
	for _, namespace := range []string{"x", "y", "z"} {
		key := namespace + ":" + keysIn(b.Sidecar, namespace, "there", false, 1)[0]
		c.Ask(fmt.Sprintf("set %s 0 0 %d\r\n%s", key, len(value), value), "STORED")
		keys = append(keys, slices.Repeat([]string{key}, 20)...)
	}
	c.Send("get " + strings.Join(keys, " ") + "\r\n")
	for i, key := range keys {
		if got, want := c.Line(), fmt.Sprintf("VALUE %s 0 %d", key, len(value)); got != want {
			t.Fatalf("value %d: %.100q, want %q", i, got, want)
		}
		c.Line()
	}
	c.Ask("mn", "END", "MN")
}

// TestMemcachedGetSame gets a long value of the same host very often in one command, and does not
// read it. It is not in memory as often.
func TestMemcachedGetSame(t *testing.T) {
	testenv.Takes(t, time.Second)
	_, b, path := textPair(t, Config{L2Size: 64 << 20})
	c := dialText(t, "unix", path)
	here, there := keysIn(b.Sidecar, "default", "here", true, 1)[0], keysIn(b.Sidecar, "default", "there", false, 1)[0]
	value := strings.Repeat("v", 1_000_000)
	c.Ask(fmt.Sprintf("set %s 0 0 %d\r\n%s", here, len(value), value), "STORED")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c.Send("get " + there + strings.Repeat(" "+here, 900) + "\r\n")
	if got := c.Line(); got != fmt.Sprintf("VALUE %s 0 %d", here, len(value)) {
		t.Errorf("%.100q", got)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 300<<20 {
		t.Errorf("%d MiB were allocated", n>>20)
	}
}

// writeSecret stores a value over the host's own socket.
func writeSecret(t *testing.T, h *host, key string) {
	t.Helper()
	app := dial(t, h.Sidecar)
	defer app.nc.Close()
	if r := app.call(&wire.Request{Op: wire.OpSet, Namespace: []byte("secret"), Key: []byte(key), Value: []byte("hidden")}); r.Status != wire.OK {
		t.Fatalf("%s %s", r.Status, r.Message)
	}
}
