package main

import (
	le "encoding/binary"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// keysOfOneHash returns keys of 32 bytes that have one hash in a namespace of a cluster
// without a seed of its own: xxh3 multiplies their second word by zero.
func keysOfOneHash(t *testing.T, namespace string, n int) (keys []string) {
	seed := kv.NamespaceSeed(0, namespace)
	hash := func(key string) kv.Hash { return kv.HashKey(seed, []byte(key)) }
	for i := range n {
		b := le.LittleEndian.AppendUint64(nil, 0xbe4ba423396cfeb8+seed)
		b = le.LittleEndian.AppendUint64(b, uint64(i)*0x9e3779b97f4a7c15)
		keys = append(keys, string(append(b, "0123456789abcdef"...)))
		if hash(keys[i]) != hash(keys[0]) {
			t.Fatalf("keys of hashes %x and %x", hash(keys[i]), hash(keys[0]))
		}
	}
	return keys
}

// sameShard returns keys that share the low 16 bits of a hash. They determine the shard
// at any size, and the page while that has not split often.
func sameShard(namespace, of string, n int) (keys []string) {
	seed := kv.NamespaceSeed(0, namespace)
	want := kv.HashKey(seed, []byte(of)) & 0xffff
	for i := 0; len(keys) < n; i++ {
		if k := fmt.Sprint("other", i); kv.HashKey(seed, []byte(k))&0xffff == want {
			keys = append(keys, k)
		}
	}
	return keys
}

// inNamespace puts a request into a namespace.
func inNamespace(namespace string, q *wire.Request) *wire.Request {
	q.Namespace = []byte(namespace)
	return q
}

// TestKeysOfOneHash checks that thousands of keys of one hash replace each other and have
// no other effect: they take no memory, and do not disturb their shard.
func TestKeysOfOneHash(t *testing.T) {
	testenv.Takes(t, time.Second)
	p := runSidecar(t)
	check := p.bystander()
	c := p.dial()
	before := c.stats()
	keys := keysOfOneHash(t, "default", 2000)
	others := sameShard("default", keys[0], 20)
	for i, k := range keys {
		c.must(setRequest(k, fmt.Sprint("value", i)))
		if i == 1000 {
			for _, o := range others {
				c.must(setRequest(o, o))
			}
		}
	}
	there := 0
	for i, k := range keys {
		switch r := c.call(getRequest(k)); {
		case r.Status == wire.OK && string(r.Value) == fmt.Sprint("value", i):
			there++
		case r.Status != wire.Miss:
			t.Fatalf("key %d: %v %q", i, r.Status, r.Value)
		}
	}
	for _, o := range others {
		if r := c.must(getRequest(o)); string(r.Value) != o {
			t.Errorf("%s of the same shard: %q", o, r.Value)
		}
	}
	after := c.stats()
	if there != 8 || after.L2.Collided != int64(len(keys)-8) || after.L2.SplitsRefused != 0 {
		t.Errorf("%d of them are there; %+v", there, after.L2)
	}
	if grown := after.Process.ResidentBytes - before.Process.ResidentBytes; grown > 64<<20 {
		t.Errorf("the process grew by %d bytes", grown)
	}
	if index := after.L2.Memory.Index - before.L2.Memory.Index; index != 0 {
		t.Errorf("the index grew by %d bytes", index)
	}
	if o := p.at("stats"); !strings.Contains(o.out, "1,992 evicted for a key of the same hash") {
		t.Errorf("stats says:\n%s%s", o.out, o.err)
	}
	check()
}

// TestLengthyOriginKeysOfOneHash does the same only with GETs, in a namespace with an origin,
// with values and with keys that the origin does not have.
func TestLengthyOriginKeysOfOneHash(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	var asked atomic.Int64
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := asked.Add(1); n%2 == 0 {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, r.URL.Query().Get("k"))
	}))
	defer origin.Close()
	config := filepath.Join(tempDir(t), "c.yaml")
	text := "namespaces: {pages: {negative_ttl: 1h, origin: {http: {url: '" + origin.URL + "/?k={key}'}}}}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := runSidecar(t, "--config", config, "--request-timeout", "1m")
	check := p.bystander()
	c := p.dial()
	before := c.stats()
	keys := keysOfOneHash(t, "pages", 2000)
	for i, k := range keys {
		switch r := c.call(inNamespace("pages", getRequest(k))); {
		case i%2 == 0 && (r.Status != wire.OK || string(r.Value) != k), i%2 == 1 && r.Status != wire.Miss:
			t.Fatalf("key %d: %v %q", i, r.Status, r.Value)
		}
	}
	for _, o := range sameShard("pages", keys[0], 20) {
		if r := c.call(inNamespace("pages", setRequest(o, o))); r.Status != wire.OK {
			t.Fatalf("%v %s", r.Status, r.Message)
		}
		if r := c.must(inNamespace("pages", getRequest(o))); string(r.Value) != o {
			t.Errorf("%s of the same shard: %q", o, r.Value)
		}
	}
	loads := asked.Load()
	for i, k := range keys[len(keys)-8:] { // 4 values and 4 negative entries
		if r := c.call(inNamespace("pages", getRequest(k))); i%2 == 0 && string(r.Value) != k || i%2 == 1 && r.Status != wire.Miss {
			t.Errorf("the last keys but %d: %v %q", 8-i, r.Status, r.Value)
		}
	}
	after := c.stats()
	if loads != 2000 || asked.Load() != loads || after.L2.Collided != 1992 {
		t.Errorf("%d loads, and %d for keys that are there; %+v", loads, asked.Load()-loads, after.L2)
	}
	if grown := after.Process.ResidentBytes - before.Process.ResidentBytes; grown > 64<<20 {
		t.Errorf("the process grew by %d bytes", grown)
	}
	check()
}
