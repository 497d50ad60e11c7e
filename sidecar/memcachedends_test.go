package sidecar

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMemcachedManyKeys asks for thousands of another host's keys in one get, of two namespaces
// in turn, and of one. No key is missing, and all come in their order.
func TestMemcachedManyKeys(t *testing.T) {
	_, b, path := textPair(t, Config{
		MemcachedDelimiter: ":", Namespaces: map[string]Namespace{"one": {}, "two": {}},
	})
	c := dialText(t, "unix", path)
	one, two := textKeys(b, "one", "k", false, 2500), textKeys(b, "two", "k", false, 2500)
	var mixed, plain []string
	for i := range one {
		mixed = append(mixed, "one:"+one[i], "two:"+two[i])
		plain = append(plain, "one:"+one[i])
	}
	for _, key := range mixed {
		c.send("set " + key + " 0 0 1 noreply\r\nx\r\n")
	}
	c.ask("mn", "MN")
	for _, list := range [][]string{plain, mixed} {
		c.send("get " + strings.Join(list, " ") + "\r\nversion\r\n")
		for i, key := range list {
			if line := c.line(); line != "VALUE "+key+" 0 1" || c.line() != "x" {
				t.Fatalf("key %d of %d: %q", i, len(list), line)
			}
		}
		if end, next := c.line(), c.line(); end != "END" || !strings.HasPrefix(next, "VERSION") {
			t.Fatalf("%q %q", end, next)
		}
	}
}

// TestMemcachedStops stops a sidecar in the middle of pipelines. Each client gets whole answers in
// their order, and then the end.
func TestMemcachedStops(t *testing.T) {
	a := startHost(t, "a")
	path := filepath.Join(t.TempDir(), "m")
	b := startHostWith(t, Config{Memcached: path}, "b", a.engine.Node.GossipAddress())
	settled(t, a, b)
	keys := append(textKeys(b, "default", "k", false, 20), textKeys(b, "default", "k", true, 20)...)
	begun, ended := make(chan bool, 4), make(chan error, 4)
	for range cap(ended) {
		c := dialText(t, "unix", path)
		go func() {
			for i := 0; ; i++ {
				if _, err := fmt.Fprintf(c.nc, "mg %s k O%d\r\n", keys[i%len(keys)], i); err != nil {
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
		_ = c.nc.SetReadDeadline(time.Now().Add(20 * time.Second))
		line, err := c.r.ReadString('\n')
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

// FuzzMemcached sends any bytes. The connection ends when the client has ended it, and the
// next one is served.
func FuzzMemcached(f *testing.F) {
	path := filepath.Join(f.TempDir(), "m")
	start(f, Config{Memcached: path, MemcachedDelimiter: ":"})
	f.Add([]byte("set a 0 0 1\r\nx\r\nget a b\r\nquit\r\n"), uint8(200))
	f.Add([]byte("ms a 2 c T0 I\r\nxx\r\nmg a v N30 t\r\nma n N0 J5\r\nmd a q\r\nmn\r\n"), uint8(3))
	f.Add([]byte("set a 0 0 99999999\r\nxx\r\n"), uint8(1))
	f.Add([]byte("\x80\x01\x00\x00get /x HTTP/1.1\r\nHost: a\r\n\r\n"), uint8(9))
	f.Fuzz(func(t *testing.T, b []byte, piece uint8) {
		for i, one := range [][]byte{b, []byte("mn\r\n")} {
			nc, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			for step := int(piece) + 1; len(one) > 0; one = one[min(step, len(one)):] {
				if _, err := nc.Write(one[:min(step, len(one))]); err != nil {
					break
				}
			}
			_ = nc.(*net.UnixConn).CloseWrite()
			_ = nc.SetReadDeadline(time.Now().Add(20 * time.Second))
			said, err := io.ReadAll(nc)
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Error("the connection does not end")
			}
			if nc.Close(); i == 1 && string(said) != "MN\r\n" {
				t.Errorf("then %q", said)
			}
		}
	})
}
