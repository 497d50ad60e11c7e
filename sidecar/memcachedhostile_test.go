package sidecar

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

// textKeys returns keys of a namespace that a host owns, or does not own.
func textKeys(h *host, namespace, prefix string, owned bool, n int) (keys []string) {
	for i := 0; len(keys) < n; i++ {
		key := fmt.Sprint(prefix, i)
		if hash := h.engine.Names.Hash([]byte(namespace), []byte(key)); (h.engine.Node.OwnershipEpoch(hash.Partition()) != 0) == owned {
			keys = append(keys, key)
		}
	}
	return keys
}

// TestMemcachedManyKeysAccess asks for many keys at once, one of them in a namespace that the
// client may not read. A key of another host before it changes nothing.
func TestMemcachedManyKeysAccess(t *testing.T) {
	_, b, path := textPair(t, Config{
		MemcachedDelimiter: ":", MemcachedNamespace: "open",
		Namespaces: map[string]Namespace{"secret": {}, "open": {}},
		Access:     map[string]Grants{"secret": {Read: []string{"0"}, Write: []string{"0"}}, "open": {Write: []string{"memcached"}}},
	})
	for _, owned := range []bool{true, false} {
		key := textKeys(b, "open", "k", owned, 1)[0]
		for _, hidden := range append(textKeys(b, "secret", "s", true, 1), textKeys(b, "secret", "s", false, 1)...) {
			writeSecret(t, b, hidden)
			c := dialText(t, "unix", path)
			c.ask("set "+key+" 0 0 1\r\nx", "STORED")
			c.send("get " + key + " secret:" + hidden + "\r\nmn\r\n")
			for line := ""; line != "MN"; {
				if line = c.line(); strings.Contains(line, "hidden") || strings.Contains(line, "read unix") {
					t.Fatalf("after a key of this host %v: %q", owned, line)
				}
			}
		}
	}
}

// TestMemcachedHTTP sends what a browser can be made to send: no command in it is served.
func TestMemcachedHTTP(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m")
	start(t, Config{Memcached: path})
	const head = "Host: 127.0.0.1:11211\r\nContent-Length: 30\r\n\r\n"
	const body = "set pwned 0 0 1\r\nx\r\n"
	for _, method := range []string{
		"GET", "POST", "PUT", "get", "gets", "set", "mg", "ms", "me", "mn", "md", "version", "stats", "delete", "touch", "flush_all",
		"incr", "x", "PATCH", "bget",
	} {
		c := dialText(t, "unix", path)
		_, _ = c.nc.Write([]byte(method + " /x HTTP/1.1\r\n" + head + body))
		for {
			_ = c.nc.SetReadDeadline(time.Now().Add(time.Minute))
			if _, err := c.r.ReadString('\n'); err != nil {
				if strings.Contains(err.Error(), "timeout") {
					t.Errorf("%s: the connection goes on", method)
				}
				break
			}
		}
		ok := dialText(t, "unix", path)
		ok.ask("delete pwned", "NOT_FOUND")
	}
}

// TestMemcachedLongAnswers asks for a long value and does not read it, in every way. The answer is
// charged to the memory of answers.
func TestMemcachedLongAnswers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m")
	s := start(t, Config{Memcached: path})
	const size = 500_000
	dialText(t, "unix", path).ask(fmt.Sprintf("set long 0 0 %d\r\n%s", size, strings.Repeat("x", size)), "STORED")
	for _, command := range []string{"get long", "gets long x", "gat 0 long", "gats 0 x long", "mg long v", "mg long v h k Oq"} {
		before := s.engine.Budget.Stats().Answers
		c := dialText(t, "unix", path)
		c.send(command + "\r\n")
		until := time.Now().Add(time.Minute)
		for s.engine.Budget.Stats().Answers < before+size {
			if time.Now().After(until) {
				t.Errorf("%s: %d more bytes of answers are charged", command, s.engine.Budget.Stats().Answers-before)
				break
			}
			time.Sleep(time.Millisecond)
		}
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
