package sidecar

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// badInput is what a client may send, and how the endpoint answers it. An answer that ends in
// close is the last one.
var badInput = []struct {
	name, sent string
	want       []string
}{
	{"a line of 1 MiB without an end", "get " + strings.Repeat("x", 1<<20), []string{"CLIENT_ERROR line too long", "close"}},
	{"a line of 1 MiB", "set " + strings.Repeat("x", 1<<20) + " 0 0 1\r\n", []string{"CLIENT_ERROR line too long", "close"}},
	{"a line of 3 KiB that is no get", "delete " + strings.Repeat("x", 3<<10) + "\r\n", []string{"CLIENT_ERROR line too long", "close"}},
	{"a get of nearly 1 MiB", "get" + strings.Repeat(" "+strings.Repeat("k", 250), 4000) + "\r\n", []string{"END"}},
	{"a key of 251 bytes", "get " + strings.Repeat("x", 251) + "\r\n", []string{"CLIENT_ERROR bad command line format"}},
	{"a key of 251 bytes behind others", "get a b " + strings.Repeat("x", 251) + "\r\n", []string{"CLIENT_ERROR bad command line format"}},
	{"a key of control characters", "get \x01\x7f\t\v\r\n", []string{"END"}},
	{"a zero byte in a key", "set a\x00b 0 0 1\r\nx\r\nget a\x00b\r\n", []string{"STORED", "VALUE a\x00b 0 1", "x", "END"}},
	{"a negative length", "set k 0 0 -1\r\n", []string{"CLIENT_ERROR bad command line format"}},
	{"a huge length", "set k 0 0 99999999999999999999\r\n", []string{"CLIENT_ERROR bad command line format"}},
	{"a length of 2^31", "set k 0 0 2147483648\r\n", []string{"CLIENT_ERROR bad command line format"}},
	{"a length of ms with a letter", "ms k 1x\r\n", []string{"CLIENT_ERROR bad command line format"}},
	{"a value that ends late", "set k 0 0 1\r\nxx\r\n", []string{"CLIENT_ERROR bad data chunk"}},
	{"the binary protocol", "\x80\x00\x00\x01", []string{"close"}},
	{"an empty line", "\r\n", []string{"ERROR"}},
	{"lines of spaces", "   \r\n \n", []string{"ERROR", "ERROR"}},
	{"an unknown command", "frob a b c\r\n", []string{"ERROR"}},
}

// TestMemcachedBadInput sends bad input whole and a byte at a time at its end. Another client
// is served meanwhile.
func TestMemcachedBadInput(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m")
	start(t, Config{Memcached: path})
	other := dialText(t, "unix", path)
	for _, tc := range badInput {
		for _, slowly := range []bool{false, true} {
			c := dialText(t, "unix", path)
			whole := len(tc.sent)
			if slowly {
				whole = max(0, whole-20)
			}
			_, _ = c.nc.Write([]byte(tc.sent[:whole])) // the endpoint may have ended it
			for ; whole < len(tc.sent); whole++ {
				_, _ = c.nc.Write([]byte{tc.sent[whole]})
			}
			for _, want := range tc.want {
				got := c.line()
				if want == "close" && got != "MN" && strings.HasPrefix(got, " (") && !strings.Contains(got, "timeout") {
					continue
				}
				if got != want && !(strings.HasPrefix(want, "CLIENT_ERROR") && strings.HasPrefix(got, want)) {
					t.Errorf("%s, slowly %v: %q, want %q", tc.name, slowly, got, want)
				}
			}
			if tc.want[len(tc.want)-1] != "close" && !strings.Contains(tc.name, "late") {
				c.ask("mn", "MN")
			}
			other.ask("mn", "MN")
			c.nc.Close()
		}
	}
}

// TestMemcachedTruncated ends a connection at each byte of a command. It is not served, and the
// next client finds what was there before.
func TestMemcachedTruncated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m")
	start(t, Config{Memcached: path})
	other := dialText(t, "unix", path)
	other.ask("set k 7 0 1\r\n5", "STORED")
	for _, command := range []string{
		"get k\r\n", "gets k\r\n", "gat 1 k\r\n", "mg k v T1\r\n", "me k\r\n", "incr k 1\r\n", "decr k 1\r\n", "ma k\r\n",
		"touch k 1\r\n", "delete k\r\n", "md k\r\n", "flush_all\r\n", "set k 0 0 5\r\nhello\r\n", "ms k 5\r\nhello\r\n",
		"append k 0 0 3\r\n\r\nx\r\n", "prepend k 0 0 1\r\n1\r\n", "replace k 0 0 1\r\n1\r\n", "add l 0 0 1\r\n1\r\n",
		"cas k 0 0 1 1\r\n1\r\n", "set k 0 0 1 noreply\r\n1\r\n", "version\r\n", "stats\r\n", "verbosity 1\r\n", "mn\r\n",
	} {
		for n := range len(command) {
			c := dialText(t, "unix", path)
			c.send(command[:n])
			_ = c.nc.(*net.UnixConn).CloseWrite()
			_ = c.nc.SetReadDeadline(time.Now().Add(20 * time.Second))
			if said, err := io.ReadAll(c.nc); err != nil || len(said) > 0 {
				t.Errorf("%q: %q, %v", command[:n], said, err)
			}
			c.nc.Close()
		}
		other.ask("mg k v f t", "VA 1 f7 t-1", "5")
		other.ask("get l", "END")
	}
}

// givenBack waits until the memory of commands is that of before.
func givenBack(t *testing.T, s *Sidecar, before int64) {
	t.Helper()
	for until := time.Now().Add(time.Minute); s.engine.Budget.Stats().Frames > before; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%d bytes of frames are charged, %d before", s.engine.Budget.Stats().Frames, before)
		}
	}
}

// TestMemcachedValuesNeverCome announces many long values and sends only their beginnings. Their
// memory is bounded, others are served, and nothing is left when the clients have gone.
func TestMemcachedValuesNeverCome(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m")
	s := start(t, Config{Memcached: path, BufferSize: 16 << 20})
	other := dialText(t, "unix", path)
	before := s.engine.Budget.Stats().Frames
	var all []net.Conn
	for i := range 200 {
		c := dialText(t, "unix", path)
		c.send(fmt.Sprintf("set k%d 0 0 400000\r\n%s", i, strings.Repeat("x", 100_000)))
		all = append(all, c.nc)
	}
	soon(t, "the values to take memory", func() bool {
		stats := s.engine.Budget.Stats()
		return stats.Frames > before+8<<20 && stats.RefusedFor["frames"] > 0
	})
	for i := range 100 {
		other.ask(fmt.Sprintf("set other 0 0 3\r\n%03d", i), "STORED")
		other.ask("get other", "VALUE other 0 3", fmt.Sprintf("%03d", i), "END")
	}
	if stats := s.engine.Budget.Stats(); stats.Frames > stats.Limit {
		t.Errorf("%+v", stats)
	}
	for _, nc := range all {
		nc.Close()
	}
	givenBack(t, s, before)
	other.ask("get k0", "END")
}

// TestMemcachedStorm sends commands that want no answer, one in two of them wrong, faster than
// they are served, while another client works.
func TestMemcachedStorm(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m")
	start(t, Config{Memcached: path})
	c, other := dialText(t, "unix", path), dialText(t, "unix", path)
	sent := make(chan error, 1)
	go func() {
		storm := strings.Repeat("set k 0 0 1 noreply\r\nx\r\ndelete k noreply\r\nincr k 1 noreply\r\nmg k q\r\n", 1000)
		for range 50 {
			if _, err := c.nc.Write([]byte(storm)); err != nil {
				sent <- err
				return
			}
		}
		_, err := c.nc.Write([]byte("mn\r\n"))
		sent <- err
	}()
	for range 100 {
		other.ask("set other 0 0 1\r\ny", "STORED")
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if line := c.line(); line != "MN" {
		t.Error(line)
	}
}

// TestMemcachedReload changes the rules and the namespaces under a connection that stands. Each
// next command goes by the new ones.
func TestMemcachedReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m")
	r := newReloaded(t, Config{Memcached: path, MemcachedDelimiter: ":", Namespaces: map[string]Namespace{"open": {}}})
	c := dialText(t, "unix", path)
	c.ask("set open:k 0 0 1\r\nx", "STORED")
	c.ask("get open:k", "VALUE open:k 0 1", "x", "END")
	r.apply(func(c *Config) {
		c.Access = map[string]Grants{"open": {Read: []string{"memcached"}, Write: []string{"0"}}}
	})
	c.ask("get open:k", "VALUE open:k 0 1", "x", "END")
	for _, change := range []string{"set open:k 0 0 1\r\ny", "delete open:k", "incr open:k 1", "touch open:k 1"} {
		c.send(change + "\r\n")
		if line := c.line(); !strings.HasPrefix(line, "CLIENT_ERROR") {
			t.Errorf("%q: %q", change, line)
		}
	}
	c.ask("get open:k", "VALUE open:k 0 1", "x", "END")
	r.apply(func(c *Config) { c.Access = map[string]Grants{"open": {Read: []string{"0"}, Write: []string{"0"}}} })
	for _, read := range []string{"get open:k", "gets open:k a", "mg open:k v", "me open:k"} {
		if c.send(read + "\r\nmn\r\n"); strings.Contains(untilNoop(c), "x|") {
			t.Errorf("%q shows the value", read)
		}
	}
	r.apply(func(c *Config) { c.Access = nil; delete(c.Namespaces, "open") })
	c.ask("get open:k", "END") // the prefix names no namespace any more: this is a key of the default one
	c.ask("set open:k 0 0 1\r\ny", "STORED")
	r.apply(func(c *Config) { c.Namespaces["open"] = Namespace{} })
	c.ask("get open:k", "VALUE open:k 0 1", "x", "END")
}
