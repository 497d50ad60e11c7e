package top

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rivo/uniseg"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/table"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// busyHost returns the statistics of a host that has served for some seconds, at so many
// reads a second.
func busyHost(node string, seconds, reads int64) cachesidecar.Stats {
	st := cachesidecar.Stats{Node: node, UptimeMS: seconds * 1000}
	st.Process.PID = 7
	st.L2.Memory.Used, st.L2.Memory.Limit, st.L2.Entries = 32<<20, 64<<20, 1000
	st.Cluster.Invalidations.LagUS = 1500
	ns := cachesidecar.NamespaceStats{Name: "pages", Bytes: 1 << 20, Entries: 900, Quota: 2 << 20}
	ns.Hits, ns.Misses = seconds*reads*3/4, seconds*reads/4
	ns.Writes, ns.Deletes, ns.Errors, ns.Loads.Loads = seconds*20, seconds*4, seconds*2, seconds*5
	st.Namespaces = []cachesidecar.NamespaceStats{ns, {Name: "idle"}}
	return st
}

// twoSamples returns samples of two hosts that answer and one that does not, 2 s apart.
func twoSamples() (now, last *sample) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	last, now = &sample{at: at, here: "a"}, &sample{
		at: at.Add(2 * time.Second), here: "a",
		members: []cachesidecar.Member{{Node: "a", State: "in"}, {Node: "b", State: "out"}, {Node: "c", State: "missing"}},
		hot: cachesidecar.HotKeys{WindowMS: 10_000, Reads: 40_000, Keys: []cachesidecar.HotKey{
			{Namespace: "pages", Key: "start", Reads: 10_000, Share: 0.25},
		}},
	}
	last.Nodes = []cachesidecar.Stats{busyHost("a", 10, 1000), busyHost("b", 10, 3000)}
	now.Nodes = []cachesidecar.Stats{busyHost("a", 12, 1000), busyHost("b", 12, 3000)}
	now.Missing = []cachesidecar.MissingStats{{Node: "c", Why: "connection refused"}}
	return now, last
}

func TestTopFrame(t *testing.T) {
	now, last := twoSamples()
	v := &view{interval: 2 * time.Second, by: &orders[0], prompt: true}
	want := `cachesidecar top on a: 2 of 3 hosts, every 2s, by reads, at 03:04:07
4000 reads/s, 75.0% hits, 48 writes/s, 10 loads/s, 4.0 errors/s, 2,000 entries,…

HOST  STATE    READS/S  WRITE/S   HITS  LOAD/S  ERR/S    LAG  L2 USED
c     missing  no answer: connection refused
b     out         3000       24  75.0%     5.0    2.0  1.5ms   50.0 %
a     in          1000       24  75.0%     5.0    2.0  1.5ms   50.0 %

NAMESPACE  READS/S  WRITE/S   HITS  LOAD/S  ERR/S  ENTRIES              MEMORY
pages         4000       48  75.0%      10    4.0    1,800  2.0 MiB of 4.0 MiB
idle             0        0      -       0      0        0                 0 B

HOTTEST  READS/S   SHARE  NAMESPACE  KEY
      1     1000  25.0 %  pages      start

q quit; order by: r reads  w writes  h misses  l loads  e errors  g lag  m memo…`
	if got := strings.Join(v.frame(now, last, 80, 24), "\n"); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	// Without an earlier sample there are no rates; a restarted process has none either.
	now.Nodes[0].Process.PID = 8
	page := strings.Join(v.frame(now, last, 200, 0), "\n")
	if !strings.Contains(page, "a     in             -        -      -") || !strings.Contains(page, "\n3000 reads/s, 75.0% hits") {
		t.Errorf("a restarted host has rates:\n%s", page)
	}
	if page := strings.Join(v.frame(now, nil, 200, 0), "\n"); !strings.Contains(page, "\n- reads/s, - hits") {
		t.Errorf("rates of one sample:\n%s", page)
	}
	now.Nodes[0].NotReady = "alone: no other host answers (b)"
	now.alone, now.hotRefused, now.err = "unauthorized: x", "unsupported: y", errors.New("gone")
	page = strings.Join(v.frame(now, last, 200, 0), "\n")
	for _, want := range []string{"this host only", "other hosts: unauthorized: x", "not available: unsupported: y", "NO ANSWER: gone", "a: not ready: alone: no other host answers (b)"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
}

// TestTopFits checks that a page fits its terminal, whatever the names are.
func TestTopFits(t *testing.T) {
	now, last := twoSamples()
	for i := range 50 {
		name := strings.Repeat("日本語é", 1+i%9) + fmt.Sprint(i)
		now.Nodes = append(now.Nodes, busyHost(name, 12, int64(i)*100_000))
		now.hot.Keys = append(now.hot.Keys, cachesidecar.HotKey{Namespace: strings.Repeat("n", 64), Key: strings.Repeat("👨‍👩‍👧🇩🇪", i), Reads: 5})
	}
	v := &view{interval: time.Second, by: &orders[0], prompt: true}
	for _, width := range []int{1, 2, 13, 40, 79, 80, 81, 120, 200} {
		for _, height := range []int{1, 5, 10, 24, 60, 400} {
			lines := v.frame(now, last, width, height)
			if len(lines) > height {
				t.Errorf("%d x %d: %d lines", width, height, len(lines))
			}
			for _, line := range lines {
				if w := uniseg.StringWidth(line); w > width || !utf8.ValidString(line) {
					t.Errorf("%d x %d: %d columns: %q", width, height, w, line)
				}
			}
		}
	}
	page := strings.Join(v.frame(now, last, 80, 30), "\n")
	for _, want := range []string{"NAMESPACE ", "HOTTEST ", "… and ", "q quit"} {
		if !strings.Contains(page, want) {
			t.Errorf("80 x 30 lacks %q:\n%s", want, page)
		}
	}
	if n := strings.Count(strings.Join(v.frame(now, last, 80, 0), "\n"), "\n"); n < 100 {
		t.Errorf("a page without a limit has %d lines", n)
	}
}

// TestNothingMovesTheCursor checks that no page contains a stranger's characters that move a cursor, end a line or
// change the direction of text.
func TestNothingMovesTheCursor(t *testing.T) {
	const evil = "a\x1b[2J\u009b31m\u202e\t\v\n\x7fz"
	var stats cachesidecar.Stats
	var all cachesidecar.ClusterStats
	var list []cachesidecar.Member
	var hot cachesidecar.HotKeys
	for _, v := range []any{&stats, &all, &list, &hot} {
		testenv.FillTexts(reflect.ValueOf(v).Elem(), evil)
	}
	stats.L1.Limit, stats.LeaseTokens.Issued = 1, 1
	page := &view{by: &orders[0]}
	now := &sample{ClusterStats: all, here: evil, alone: evil, members: list, hotRefused: evil, err: errors.New(evil)}
	now.Nodes = []cachesidecar.Stats{stats}
	for _, refused := range []string{evil, ""} {
		now.hotRefused, now.hot = refused, hot
		text := strings.Join(page.frame(now, nil, 80, 0), "\n")
		if logs.Lines(text) != text || strings.Contains(text, "\nz") || !strings.Contains(text, "HOTTEST") {
			t.Errorf("%q", text)
		}
	}
}

func TestPerSecond(t *testing.T) {
	for rate, want := range map[float64]table.RightAligned{
		-1: "-", 0: "0", 0.04: "0.0", 9.94: "9.9", 9.96: "10", 1234.4: "1234", 99_999: "99999", 123_456: "123.5k", 12_345_678: "12.35M",
	} {
		if got := perSecond(rate); got != want || len(got) > 6 {
			t.Errorf("%v: %q, want %q", rate, got, want)
		}
	}
}
