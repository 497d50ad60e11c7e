package sidecar

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/origintest"
)

// textConn is a client that speaks memcached's protocol.
type textConn struct {
	t  testing.TB
	nc net.Conn
	r  *bufio.Reader
}

func dialText(t testing.TB, network, address string) *textConn {
	t.Helper()
	nc, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &textConn{t, nc, bufio.NewReader(nc)}
}

func (c *textConn) send(s string) {
	c.t.Helper()
	if _, err := c.nc.Write([]byte(s)); err != nil {
		c.t.Fatal(err)
	}
}

// line returns the next line, or why there is none.
func (c *textConn) line() string {
	_ = c.nc.SetReadDeadline(time.Now().Add(20 * time.Second))
	s, err := c.r.ReadString('\n')
	if err != nil {
		return fmt.Sprintf("%s (%v)", s, err)
	}
	return strings.TrimSuffix(s, "\r\n")
}

// ask sends a command and expects lines.
func (c *textConn) ask(command string, want ...string) {
	c.t.Helper()
	c.send(command + "\r\n")
	for _, w := range want {
		if got := c.line(); got != w {
			c.t.Fatalf("%.80q: %.200q, want %.200q", command, got, w)
		}
	}
}

// textTargets are servers of memcached's protocol: a sidecar that is alone, one host of two,
// and memcached itself. They hold the tests to what memcached does.
func textTargets(t *testing.T) map[string]func(t *testing.T) *textConn {
	return map[string]func(t *testing.T) *textConn{
		"alone": func(t *testing.T) *textConn {
			path := filepath.Join(t.TempDir(), "m")
			start(t, Config{Memcached: path})
			return dialText(t, "unix", path)
		},
		"tcp": func(t *testing.T) *textConn {
			s := start(t, Config{Memcached: "127.0.0.1:0"})
			return dialText(t, "tcp", s.memcached.ln.Addr().String())
		},
		"pair": func(t *testing.T) *textConn {
			path := filepath.Join(t.TempDir(), "m")
			a := &host{Sidecar: start(t, Config{Node: "a", Bind: "127.0.0.1:0", L1Size: 1 << 20})}
			b := &host{Sidecar: start(t, Config{
				Node: "b", Bind: "127.0.0.1:0", L1Size: 1 << 20, Memcached: path, Weight: 1,
				Join: []string{a.engine.Node.GossipAddress()},
			})}
			settled(t, a, b)
			return dialText(t, "unix", path)
		},
		"memcached": func(t *testing.T) *textConn {
			program := origintest.Need(t, "memcached", "apt-get install memcached")
			socket := filepath.Join(origintest.Folder(t), "s")
			origintest.Start(t, exec.Command(program, "-s", socket, "-u", "root", "-I", "8m"), socket)
			return dialText(t, "unix", socket)
		},
	}
}

// TestMemcachedScripts plays conversations. A line with > is sent, one with < expected. A
// number in braces is any one at its first place, and the same one after it.
func TestMemcachedScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/memcached/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for name, target := range textTargets(t) {
		t.Run(name, func(t *testing.T) {
			c := target(t)
			for _, file := range files {
				c.ask("flush_all", "OK")
				c.play(file)
			}
		})
	}
}

var number = regexp.MustCompile(`\{\w+\}`)

func (c *textConn) play(file string) {
	c.t.Helper()
	script, err := os.ReadFile(file)
	if err != nil {
		c.t.Fatal(err)
	}
	bound := map[string]string{}
	var sent []byte
	for i, line := range strings.Split(strings.TrimSuffix(string(script), "\n"), "\n") {
		kind, text, _ := strings.Cut(line, " ")
		switch kind {
		case ">":
			text = number.ReplaceAllStringFunc(text, func(n string) string { return bound[n] })
			sent = append(append(sent, text...), "\r\n"...)
			continue
		case "<":
		default:
			continue
		}
		c.send(string(sent))
		sent = nil
		if got := c.line(); !same(got, text, bound) {
			c.t.Fatalf("%s:%d: got %q, want %q", file, i+1, got, text)
		}
	}
}

// same compares a line with what a script expects, and binds its numbers.
func same(got, want string, bound map[string]string) bool {
	names := number.FindAllString(want, -1)
	pattern := "^" + number.ReplaceAllLiteralString(regexp.QuoteMeta(strings.NewReplacer("{", "<", "}", ">").Replace(want)), "") + "$"
	for _, n := range names {
		pattern = strings.Replace(pattern, "<"+strings.Trim(n, "{}")+">", `(-?\d+)`, 1)
	}
	m := regexp.MustCompile(pattern).FindStringSubmatch(got)
	if m == nil {
		return false
	}
	for i, n := range names {
		if was, ok := bound[n]; ok && was != m[i+1] {
			return false
		}
		bound[n] = m[i+1]
	}
	return true
}

// TestMemcachedByByte sends a script byte by byte: the answers are the same.
func TestMemcachedByByte(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m")
	start(t, Config{Memcached: path})
	c := dialText(t, "unix", path)
	for _, b := range []byte("set a 1 0 4\r\n\r\n\r\n\r\nget a b\r\nms k 2\r\nhi\r\nmg k v\r\n") {
		c.send(string([]byte{b}))
	}
	var got []string
	for range 9 {
		got = append(got, c.line())
	}
	want := []string{"STORED", "VALUE a 1 4", "", "", "", "END", "HD", "VA 2", "hi"}
	if !bytes.Equal([]byte(strings.Join(got, "|")), []byte(strings.Join(want, "|"))) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestMemcachedHeads reads values of all lengths with the longest head: the value is moved to
// its end, and whole.
func TestMemcachedHeads(t *testing.T) {
	for name, target := range textTargets(t) {
		t.Run(name, func(t *testing.T) {
			c := target(t)
			key, opaque := strings.Repeat("k", 250), strings.Repeat("o", 31)
			for _, n := range []int{0, 1, 9, 10, 99, 100, 1000, 31 << 10, 32 << 10, 65 << 10, 500 << 10} {
				value := strings.Repeat("0123456789", n/10+1)[:n]
				c.ask(fmt.Sprintf("ms %s %d F4294967295 T0\r\n%s", key, n, value), "HD")
				c.ask("get "+key+" "+key, fmt.Sprintf("VALUE %s 4294967295 %d", key, n), value,
					fmt.Sprintf("VALUE %s 4294967295 %d", key, n), value, "END")
				c.ask("mg "+key+" v k O"+opaque+" f s t", fmt.Sprintf("VA %d k%s O%s f4294967295 s%d t-1", n, key, opaque, n), value)
				c.ask("mg "+key+" k O"+opaque+" f s t", fmt.Sprintf("HD k%s O%s f4294967295 s%d t-1", key, opaque, n))
			}
		})
	}
}

// TestMemcachedTimes gives points in time: those behind us end a value, those to come say when
// it ends.
func TestMemcachedTimes(t *testing.T) {
	for name, target := range textTargets(t) {
		t.Run(name, func(t *testing.T) {
			c := target(t)
			now := time.Now().Unix()
			const month = 31 * 24 * 3600 // a point in 1970
			for _, past := range []int64{now - 1, now - 1000, month} {
				c.ask("flush_all", "OK")
				c.ask(fmt.Sprintf("add k 0 %d 1\r\na", past), "STORED")
				c.ask("get k", "END")
				c.ask("delete k", "NOT_FOUND")
				c.ask(fmt.Sprintf("set k 0 0 1\r\na\r\nset k 0 %d 1\r\nb", past), "STORED", "STORED")
				c.ask("get k", "END")
				c.ask(fmt.Sprintf("set k 0 0 1\r\na\r\ntouch k %d", past), "STORED", "TOUCHED")
				c.ask("get k", "END")
				c.ask(fmt.Sprintf("ms k 1 T%d\r\na", past), "HD")
				c.ask("mg k v", "EN")
				c.ask(fmt.Sprintf("set k 0 0 1\r\na\r\ngat %d k\r\nget k", past), "STORED", "VALUE k 0 1", "a", "END", "END")
				c.ask(fmt.Sprintf("set k 0 0 1\r\na\r\nmg k v T%d\r\nmg k v", past), "STORED", "VA 1", "a", "EN")
			}
			early := int64(1) // s
			if name == "pair" {
				early = 22 // a copy of another host's value ends early by 2 %
			}
			ends := func(command, answer string) {
				t.Helper()
				c.ask(command, answer)
				c.send("mg k t\r\n")
				var left int64
				at := time.Now().Unix()
				if _, err := fmt.Sscanf(c.line(), "HD t%d", &left); err != nil || at+left < now+1000-early || at+left > now+1002 {
					t.Errorf("%s: the value ends %d s behind %d, %v, want %d", command, left, at, err, now+1000)
				}
			}
			ends(fmt.Sprintf("set k 0 %d 1\r\na", now+1000), "STORED")
			c.ask("touch k 0", "TOUCHED")
			ends(fmt.Sprintf("touch k %d", now+1000), "TOUCHED")
			ends(fmt.Sprintf("ms k 1 T%d\r\na", now+1000), "HD")
			c.ask(fmt.Sprintf("flush_all %d", now+1000), "OK")
			c.ask("mg k v", "VA 1", "a")
			c.ask(fmt.Sprintf("flush_all %d", now+1), "OK")
			for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
				if c.send("mg k\r\n"); c.line() == "EN" {
					break
				}
				if time.Now().After(end) {
					t.Fatal("a flush_all of a point in time does not come")
				}
			}
		})
	}
}

// TestMemcachedStats reads the statistics of a store that is empty, and has one value.
func TestMemcachedStats(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m")
	start(t, Config{Memcached: path})
	c := dialText(t, "unix", path)
	stats := func(sub string) map[string]string {
		m := map[string]string{}
		c.send("stats" + sub + "\r\n")
		for {
			f := strings.SplitN(c.line(), " ", 3)
			if len(f) != 3 {
				return m
			}
			m[f[1]] = f[2]
		}
	}
	holds := func(got map[string]string, want ...string) {
		t.Helper()
		for _, w := range want {
			if name, v, _ := strings.Cut(w, " "); got[name] != v {
				t.Errorf("%s is %q, want %q", name, got[name], v)
			}
		}
	}
	holds(stats(""), "curr_items 0", "total_items 0", "bytes 0", "store_no_memory 0", "accepting_conns 1",
		"listen_disabled_num 0", "time_in_listen_disabled_us 0")
	c.ask("set k 0 0 5\r\nvalue\r\nadd k 0 0 1\r\nx\r\ncas k 0 0 1 1\r\nx", "STORED", "NOT_STORED", "EXISTS")
	got := stats("")
	if holds(got, "curr_items 1", "total_items 1", "cmd_set 3"); len(got["bytes"]) != 2 {
		t.Errorf("a value of 5 bytes takes %s", got["bytes"])
	}
	c.ask("delete k\r\nstats reset", "DELETED", "RESET")
	holds(stats(""), "curr_items 0", "total_items 0", "bytes 0")
	holds(stats(" settings"), "domain_socket "+path, "auth_enabled_sasl no", "shutdown_command no", "cas_enabled yes")
}
