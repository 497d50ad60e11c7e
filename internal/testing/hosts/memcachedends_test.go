package hosts

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestMemcachedManyKeys asks for thousands of another host's keys in one get, of two namespaces
// in turn, and of one. No key is missing, and all come in their order.
func TestMemcachedManyKeys(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 800*time.Millisecond)
	_, b, path := textPair(t, Config{
		MemcachedDelimiter: ":", Namespaces: map[string]Namespace{"one": {}, "two": {}},
		RequestTimeout: 30 * time.Second,
	})
	c := dialText(t, "unix", path)
	one, two := keysIn(b.Sidecar, "one", "k", false, 2500), keysIn(b.Sidecar, "two", "k", false, 2500)
	var mixed, plain []string
	for i := range one {
		mixed = append(mixed, "one:"+one[i], "two:"+two[i])
		plain = append(plain, "one:"+one[i])
	}
	for _, key := range mixed {
		c.Send("set " + key + " 0 0 1 noreply\r\nx\r\n")
	}
	c.Ask("mn", "MN")
	for _, list := range [][]string{plain, mixed} {
		c.Send("get " + strings.Join(list, " ") + "\r\nversion\r\n")
		for i, key := range list {
			if line := c.Line(); line != "VALUE "+key+" 0 1" || c.Line() != "x" {
				t.Fatalf("key %d of %d: %q", i, len(list), line)
			}
		}
		if end, next := c.Line(), c.Line(); end != "END" || !strings.HasPrefix(next, "VERSION") {
			t.Fatalf("%q %q", end, next)
		}
	}
}

// TestMemcachedStops stops a sidecar in the middle of pipelines. Each client gets whole answers in
// their order, and then the end.
func TestMemcachedStops(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	a := startHost(t, "a")
	path := filepath.Join(t.TempDir(), "m")
	b := startHostWith(t, Config{Memcached: path}, "b", a.engine.Node.GossipAddress())
	settled(t, a, b)
	keys := append(keysIn(b.Sidecar, "default", "k", false, 20), keysIn(b.Sidecar, "default", "k", true, 20)...)
	begun, ended := make(chan bool, 4), make(chan error, 4)
	for range cap(ended) {
		c := dialText(t, "unix", path)
		go func() {
			for i := 0; ; i++ {
				if _, err := fmt.Fprintf(c, "mg %s k O%d\r\n", keys[i%len(keys)], i); err != nil {
					return
				}
			}
		}()
		go func() { ended <- inOrder(c, keys, begun) }()
	}
	for range cap(ended) {
		<-begun
	}
	b.stop()
	for range cap(ended) {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// inOrder reads answers to mg until the connection ends.
func inOrder(c *textConn, keys []string, begun chan<- bool) error {
	told := sync.OnceFunc(func() { begun <- true })
	defer told()
	for i := 0; ; i++ {
		line, err := c.ReadLine()
		switch {
		case err != nil && line != "":
			return fmt.Errorf("answer %d is torn: %q, %w", i, line, err)
		case err != nil:
			return nil
		case line != fmt.Sprintf("EN k%s O%d\r\n", keys[i%len(keys)], i) && !strings.HasPrefix(line, "SERVER_ERROR "):
			return fmt.Errorf("answer %d, of %s: %q", i, keys[i%len(keys)], line)
		}
		if i == 1000 {
			told()
		}
	}
}
