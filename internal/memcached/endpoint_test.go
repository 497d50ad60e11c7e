package memcached_test

import (
	"flag"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/doors"
	"github.com/cachesidecar/cachesidecar/internal/testing/memcachedtest"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestText holds a host, and memcached itself, to what memcached does.
func TestText(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	for name, dial := range map[string]func(t *testing.T) *memcachedtest.Conn{
		"unix":      func(t *testing.T) *memcachedtest.Conn { return doors.Serve(t, onehost.Config{}).TextOver("unix") },
		"tcp":       func(t *testing.T) *memcachedtest.Conn { return doors.Serve(t, onehost.Config{}).TextOver("tcp") },
		"memcached": func(t *testing.T) *memcachedtest.Conn { return memcachedtest.Memcached(t) },
	} {
		t.Run(name, func(t *testing.T) { memcachedtest.Run(t, dial, false) })
	}
}

var (
	textRuns = flag.Int("memcached.runs", 20, "random conversations of TestTextRandom")
	textSeed = flag.Uint64("memcached.seed", 1, "of the first one")
)

// TestTextRandom holds random conversations with a host and with memcached.
func TestTextRandom(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	memcachedtest.Random(t, doors.Serve(t, onehost.Config{}).Text(), memcachedtest.Memcached(t), *textRuns, *textSeed)
}

// TestTextByByte sends a script byte by byte: the answers are the same.
func TestTextByByte(t *testing.T) {
	h := doors.Serve(t, onehost.Config{})
	c := h.Text()
	for _, b := range []byte("set a 1 0 4\r\n\r\n\r\n\r\nget a b\r\nms k 2\r\nhi\r\nmg k v\r\n") {
		c.Send(string([]byte{b}))
	}
	var got []string
	for range 9 {
		got = append(got, c.Line())
	}
	want := []string{"STORED", "VALUE a 1 4", "", "", "", "END", "HD", "VA 2", "hi"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestTextStats reads the statistics of a store that is empty, and has one value.
func TestTextStats(t *testing.T) {
	h := doors.Serve(t, onehost.Config{})
	c := h.Text()
	stats := func(sub string) map[string]string {
		m := map[string]string{}
		c.Send("stats" + sub + "\r\n")
		for {
			f := strings.SplitN(c.Line(), " ", 3)
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
		"listen_disabled_num 0", "time_in_listen_disabled_us 0", "curr_connections 1", "connection_structures 1",
		"version 1.6.18", "sidecar_version 1.2.3")
	c.Ask("set k 0 0 5\r\nvalue\r\nadd k 0 0 1\r\nx\r\ncas k 0 0 1 1\r\nx", "STORED", "NOT_STORED", "EXISTS")
	got := stats("")
	if holds(got, "curr_items 1", "total_items 1", "cmd_set 3"); len(got["bytes"]) != 2 {
		t.Errorf("a value of 5 bytes takes %s", got["bytes"])
	}
	c.Ask("delete k\r\nstats reset", "DELETED", "RESET")
	holds(stats(""), "curr_items 0", "total_items 0", "bytes 0")
	holds(stats(" settings"), "domain_socket /a/socket", "auth_enabled_sasl no", "shutdown_command no", "cas_enabled yes")
}

var statNumber = regexp.MustCompile(`^\d+(\.\d{6})?$`)

// TestTextTools reads what the tools of memcached and of libmemcached, Munin, Prometheus's exporter and
// phpMemcachedAdmin ask for.
func TestTextTools(t *testing.T) {
	h := doors.Serve(t, onehost.Config{})
	c := h.Text()
	c.Send("stats\r\nmn\r\n")
	all := map[string]string{}
	for _, line := range strings.Split(c.UntilNoop(), "|") {
		if w := strings.Fields(line); len(w) == 3 {
			all[w[1]] = w[2]
		}
	}
	for _, name := range strings.Fields("pid uptime time rusage_user rusage_system reclaimed total_malloced conn_yields " +
		"auth_cmds auth_errors hash_bytes hash_is_expanding hash_power_level slabs_moved slab_reassign_running " +
		"lru_crawler_starts crawler_items_checked crawler_reclaimed direct_reclaims moves_to_cold moves_to_warm " +
		"moves_within_lru evictions limit_maxbytes threads pointer_size") {
		if !statNumber.MatchString(all[name]) {
			t.Errorf("%s is %q", name, all[name])
		}
	}
	c.Ask("version", "VERSION 1.6.18")
	c.Ask("stats slabs", "STAT active_slabs 0", "STAT total_malloced "+all["total_malloced"], "END")
	c.Ask("stats sizes\r\nstats items\r\nstats extstore", "STAT sizes_status disabled", "END", "END", "END")
	c.Ask("stats cachedump 1 0\r\nstats cachedump 64 0\r\nlru_crawler metadump all", "END",
		"CLIENT_ERROR Illegal slab id", "END")
	for network, want := range map[string]string{
		"unix": "STAT domain_socket /a/socket|STAT inter NULL|STAT tcpport 0|",
		"tcp":  "STAT domain_socket NULL|STAT inter 127.0.0.1|STAT tcpport 11211|",
	} {
		c := h.TextOver(network)
		c.Send("stats settings\r\nmn\r\n")
		said := c.UntilNoop()
		for line := range strings.SplitAfterSeq(want, "|") {
			if !strings.Contains(said, line) {
				t.Errorf("%s: %q lacks %q", network, said, line)
			}
		}
	}
}

// TestTextClaimsEnd claims many keys and stores their values without the number, as most
// clients do. A claim does not outlive that: the next ones get theirs.
func TestTextClaimsEnd(t *testing.T) {
	h := doors.Serve(t, onehost.Config{})
	c := h.Text()
	for i := range 700 {
		var b strings.Builder
		for j := range 100 {
			key := fmt.Sprintf("k%d", (i*100+j)%1000)
			fmt.Fprintf(&b, "mg %s v N3000\r\nset %s 0 0 1 noreply\r\nx\r\ndelete %s noreply\r\n", key, key, key)
		}
		c.Send(b.String() + "mn\r\n")
		for range 100 {
			if line := c.Line(); line != "VA 0 W" || c.Line() != "" {
				t.Fatalf("round %d: %q; %+v", i, line, h.LeaseTokens.Stats())
			}
		}
		if line := c.Line(); line != "MN" {
			t.Fatal(line)
		}
	}
	if out := h.LeaseTokens.Stats().Out; out > 1000 {
		t.Errorf("%d claims are out", out)
	}
}

// TestTextCounts compares the counters of stats with memcached's.
func TestTextCounts(t *testing.T) {
	counts := map[string]map[string]string{}
	for name, c := range map[string]*memcachedtest.Conn{
		"alone": doors.Serve(t, onehost.Config{}).Text(), "memcached": memcachedtest.Memcached(t),
	} {
		c.Ask("stats reset", "RESET")
		c.Send("set a 0 0 1\r\nx\r\nget a\r\nget b\r\nget a b a\r\nmg a v\r\nmg b v\r\nmg c v N30\r\nmg c v N30\r\n" +
			"gat 100 a b\r\ntouch a 100\r\ntouch z 1\r\ndelete a\r\ndelete z\r\nset n 0 0 1\r\n5\r\nincr n 1\r\nincr z 1\r\n" +
			"decr n 1\r\ndecr z 1\r\ncas n 0 0 1 1\r\nx\r\ncas z 0 0 1 1\r\nx\r\nms q 1\r\nx\r\nmd q\r\nma n\r\nma z\r\nmg n t\r\nmg z t\r\n" +
			"set long 0 0 9000000\r\n" + strings.Repeat("x", 9000000) + "\r\nmn\r\n")
		c.UntilNoop()
		c.Send("stats\r\nmn\r\n")
		counts[name] = map[string]string{}
		for _, line := range strings.Split(c.UntilNoop(), "|") {
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
