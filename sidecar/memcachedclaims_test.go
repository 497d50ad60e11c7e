package sidecar

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestMemcachedClaimsAreFresh stores the value of a claim after something else has changed the
// key: it is not stored over it.
func TestMemcachedClaimsAreFresh(t *testing.T) {
	_, b, path := textPair(t, Config{})
	for n, change := range []string{
		"set %s 0 0 3\r\nnew", "ms %s 3\r\nnew", "delete %s", "md %s", "flush_all", "add %s 0 0 3\r\nnew",
		"set %s 0 0 1\r\n5|incr %s 1", "set %s 0 0 3\r\nnew|delete %s", "ma %s N0", "set %s 0 -1 1\r\nx", "md %s I",
	} {
		for _, owned := range []bool{true, false} {
			key := textKeys(b, "default", fmt.Sprint("k", n, "-"), owned, 1)[0]
			c, other := dialText(t, "unix", path), dialText(t, "unix", path)
			c.send("mg " + key + " v c N30\r\n")
			number := strings.TrimSuffix(strings.TrimPrefix(c.line(), "VA 0 c"), " W")
			if c.line() != "" {
				t.Fatal("no claim")
			}
			for _, one := range strings.Split(strings.ReplaceAll(change, "%s", key), "|") {
				other.send(one + "\r\n")
				other.line()
			}
			other.send("get " + key + "\r\nmn\r\n")
			was := untilNoop(other)
			c.send("ms " + key + " 3 C" + number + "\r\nold\r\n")
			said := c.line()
			other.send("get " + key + "\r\nmn\r\n")
			if is := untilNoop(other); strings.Contains(is, "old") || is != was || said == "HD" {
				t.Errorf("%.40q, owned %v: %q; it was %q and is %q", change, owned, said, was, is)
			}
		}
	}
}

func untilNoop(c *textConn) (all string) {
	for {
		line := c.line()
		if line == "MN" || strings.Contains(line, "(") {
			return all
		}
		all += line + "|"
	}
}

// TestMemcachedClaimsEnd claims many keys and stores their values without the number, as most
// clients do. A claim does not outlive that: the next ones get theirs.
func TestMemcachedClaimsEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m")
	s := start(t, Config{Memcached: path})
	c := dialText(t, "unix", path)
	for i := range 700 {
		var b strings.Builder
		for j := range 100 {
			key := fmt.Sprintf("k%d", (i*100+j)%1000)
			fmt.Fprintf(&b, "mg %s v N3000\r\nset %s 0 0 1 noreply\r\nx\r\ndelete %s noreply\r\n", key, key, key)
		}
		c.send(b.String() + "mn\r\n")
		for range 100 {
			if line := c.line(); line != "VA 0 W" || c.line() != "" {
				t.Fatalf("round %d: %q; %+v", i, line, s.engine.Leases.Stats())
			}
		}
		if line := c.line(); line != "MN" {
			t.Fatal(line)
		}
	}
	if out := s.engine.Leases.Stats().Out; out > 1000 {
		t.Errorf("%d claims are out", out)
	}
}

// TestMemcachedClaimsLeaveNoReads claims many keys of another host. Each mg is a GET first, and
// then a METAGET; none counts as a read that waits for its answer once it is answered. Otherwise
// long values would find no room any more.
func TestMemcachedClaimsLeaveNoReads(t *testing.T) {
	_, b, path := textPair(t, Config{})
	c := dialText(t, "unix", path)
	for _, key := range textKeys(b, "default", "missing", false, 40) {
		c.ask("mg "+key+" v N30", "VA 0 W", "")
	}
	long := strings.Repeat("x", 500_000)
	for _, key := range textKeys(b, "default", "long", false, 3) {
		c.ask("set "+key+" 0 0 500000\r\n"+long, "STORED")
		c.ask("mg "+key+" v", "VA 500000", long)
	}
}

// TestMemcachedCounts compares the counters of stats with memcached's.
func TestMemcachedCounts(t *testing.T) {
	targets := textTargets(t)
	counts := map[string]map[string]string{}
	for _, name := range []string{"alone", "memcached"} {
		c := targets[name](t)
		c.ask("stats reset", "RESET")
		c.send("set a 0 0 1\r\nx\r\nget a\r\nget b\r\nget a b a\r\nmg a v\r\nmg b v\r\nmg c v N30\r\nmg c v N30\r\n" +
			"gat 100 a b\r\ntouch a 100\r\ntouch z 1\r\ndelete a\r\ndelete z\r\nset n 0 0 1\r\n5\r\nincr n 1\r\nincr z 1\r\n" +
			"decr n 1\r\ndecr z 1\r\ncas n 0 0 1 1\r\nx\r\ncas z 0 0 1 1\r\nx\r\nms q 1\r\nx\r\nmd q\r\nma n\r\nma z\r\nmg n t\r\nmg z t\r\n" +
			"set long 0 0 9000000\r\n" + strings.Repeat("x", 9000000) + "\r\nmn\r\n")
		untilNoop(c)
		c.send("stats\r\nmn\r\n")
		counts[name] = map[string]string{}
		for _, line := range strings.Split(untilNoop(c), "|") {
			if w := strings.Fields(line); len(w) == 3 && w[0] == "STAT" {
				counts[name][w[1]] = w[2]
			}
		}
	}
	for name, n := range counts["alone"] { // not get_hits: for memcached a claim is a hit
		theirs := counts["memcached"][name]
		of, _, _ := strings.Cut(name, "_")
		if strings.Contains("cmd delete incr decr cas touch store", of) && n != theirs {
			t.Errorf("%s is %s, memcached says %s", name, n, theirs)
		}
	}
}

// TestMemcachedRenewTouched touches a value that ends soon in the command that asks whether to load
// it anew. The time before the touch counts: else a value that is read often would never be loaded
// anew.
func TestMemcachedRenewTouched(t *testing.T) {
	for name, target := range textTargets(t) {
		t.Run(name, func(t *testing.T) {
			c := target(t)
			c.ask("set soon 0 20 1\r\nx", "STORED")
			c.ask("mg soon v R30 T100", "VA 1 W", "x")
			c.ask("set late 0 50 1\r\nx", "STORED")
			c.ask("mg late v R30 T10", "VA 1", "x")
			c.ask("set always 0 0 1\r\nx", "STORED")
			c.ask("mg always v R30 T10", "VA 1", "x")
		})
	}
}
