package main

import (
	"bytes"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader/httporigin"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// ill returns the statistics of a host on which everything is wrong that a page tells.
func ill() cachesidecar.Stats {
	calls := func(calls, err string, age time.Duration, row int64) cachesidecar.FailureStats {
		return cachesidecar.FailureStats{Calls: calls, Error: err, AgeMS: age.Milliseconds(), InARow: row}
	}
	st := cachesidecar.Stats{
		Node: "a", Server: "1.0", UptimeMS: 3_600_000, L1: cachesidecar.L1Stats{Limit: 1 << 20}, L2: cachesidecar.L2Stats{L2Counts: cachesidecar.L2Counts{Collided: 1992}},
		NotReady: "alone: no other host answers (b, c); set alone_ok if it may be alone",
		Members:  map[string]int64{"in": 1, "refused": 1, "missing": 2},
		Cluster: cachesidecar.ClusterState{
			Join: 2, Members: 1, In: true, Isolated: "no other host answers (b, c)", Owned: 16000, Pauses: 1, Polls: 10, PollFailures: 2, PeerErrors: 3, Refused: 4,
			Invalidations: cachesidecar.InvalidationStats{Leases: []cachesidecar.LeaseStats{{Node: "b", AgeMS: -1}, {Node: "c", AgeMS: 3}}},
		},
		Connections: cachesidecar.ConnectionStats{
			Open: 8, Limit: 8, Rejected: 5, Denied: map[string]int64{"read": 1, "write": 2},
			Buffers: cachesidecar.BufferStats{Limit: 100 << 20, Frames: 99 << 20, Most: "user 1000", MostBy: 90 << 20, Refused: 7},
		},
		Shares:  []cachesidecar.ShareStats{{Name: "watch streams", Used: 9, Limit: 9, Refused: 6, Most: "user 1000", MostBy: 8}},
		Overdue: 3, Log: cachesidecar.LogStats{LeftOut: 2, Lost: 1},
		Namespaces: []cachesidecar.NamespaceStats{
			{
				Name: "pages", Recent: cachesidecar.RecentStats{WindowMS: 60_000, Requests: 100, Errors: 20}, Hits: 72, SharedHits: 50, NearHits: 4, Loaded: 9, Stale: 1, ReadErrors: 18, Errors: 20,
				Loads:     cachesidecar.LoadStats{Origin: "postgres", Breaker: "closed", Loads: 28, Failed: 1},
				KeyFilter: cachesidecar.KeyFilterStats{Configured: true, Error: "too many keys"},
				Warm:      cachesidecar.WarmStats{State: "failed"},
				Failures: []cachesidecar.FailureStats{
					calls("loads", "did not answer in its time", 2*time.Hour, 1),
					calls("writes", "could not be reached: connection refused", 4*time.Second, 1),
				},
			},
			{
				Name:     "users",
				Loads:    cachesidecar.LoadStats{Origin: "http", Breaker: "half-open", BreakerHalfOpen: true, Shed: 14},
				Failures: []cachesidecar.FailureStats{calls("loads", "could not be reached: connection refused", 20*time.Minute, 19)},
			},
		},
	}
	return st
}

// TestGoldenStatsPages checks the pages of a host that is well and of one that is not,
// alone and in a cluster.
func TestGoldenStatsPages(t *testing.T) {
	bad := ill()
	well := cachesidecar.Stats{
		Node: "b", Server: "1.0", UptimeMS: 60_000, L1: cachesidecar.L1Stats{Limit: 1 << 20},
		Cluster:    cachesidecar.ClusterState{Join: 1, Members: 2, In: true, Owned: 384},
		Namespaces: []cachesidecar.NamespaceStats{{Name: "default", Hits: 3, Misses: 1}},
	}
	var got bytes.Buffer
	write := func(page string) { got.WriteString(page + "\n--------\n") }
	write(statsText(&well, nil))
	write(statsText(&bad, nil))
	write(clusterText(&cachesidecar.ClusterStats{Nodes: []cachesidecar.Stats{
		{Node: "a", Cluster: cachesidecar.ClusterState{Members: 2, In: true, Owned: 16000}}, well,
	}}))
	drained := well
	drained.Cluster.Drained, drained.Cluster.Owned = true, 0
	write(statsText(&drained, nil))
	out := well
	out.NotReady, out.Cluster.In, out.Cluster.Owned = "not joined: another key", false, 0
	write(statsText(&out, nil))
	write(clusterText(&cachesidecar.ClusterStats{
		Nodes: []cachesidecar.Stats{bad, out}, Missing: []cachesidecar.MissingStats{{Node: "c", Why: "no answer in 2s"}},
	}))
	goldenText(t, "stats_pages.txt", got.String())
}

// TestFindingsAreBounded checks that a page counts the findings that it does not show.
func TestFindingsAreBounded(t *testing.T) {
	st := ill()
	for range 100 {
		st.Namespaces = append(st.Namespaces, st.Namespaces[0])
		st.Cluster.Invalidations.Leases = append(st.Cluster.Invalidations.Leases, cachesidecar.LeaseStats{Node: "x", AgeMS: -1})
	}
	head, _, _ := strings.Cut(statsText(&st, nil), "\nreads ")
	if n := strings.Count(head, "\n"); n > 2*findingsShown+4 {
		t.Errorf("%d lines:\n%s", n, head)
	}
	for _, want := range []string{"no lease on b, x, x, x, x, and 96 more: ", "\n         and 100 more\n"} {
		if !strings.Contains(head, want) {
			t.Errorf("%q is not in\n%s", want, head)
		}
	}
}

// TestStatsOfAFailingOrigin follows a real origin with the command: nine loads and nineteen
// errors are 0 % hits, and the page, the document and the log tell of the failure, of the
// open breaker, and of the recovery. Each of health, /readyz, the page for browsers and top says
// what stats says, and the host stays ready.
func TestStatsOfAFailingOrigin(t *testing.T) {
	testenv.Takes(t, 2*time.Second)
	var down atomic.Bool
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("v"))
	}))
	defer origin.Close()
	token := testenv.File(t, "sesame-sesame-sesame\n")
	addr := testenv.FreeAddress(t)
	serveWith(t, sidecar.Config{HTTP: addr, HTTPTokenFile: token, Namespaces: map[string]sidecar.Namespace{"users": {
		Origin: &httporigin.Config{URL: origin.URL + "/{key}"}, Limits: sidecar.Limits{Breaker: sidecar.Breaker{Open: 50 * time.Millisecond}},
	}}})
	get := func(from, to, status int) {
		t.Helper()
		for i := from; i < to; i++ {
			if o := command(t, "", "get", "--ns", "users", "k"+string(rune('A'+i))); o.status != status {
				t.Fatal(o)
			}
		}
	}
	has := func(when string, want ...string) {
		t.Helper()
		page := mustRun(t, "stats")
		for _, w := range want {
			if !regexp.MustCompile(w).MatchString(page) {
				t.Errorf("%s: %q is not in\n%s", when, w, page)
			}
		}
	}
	fail := func() {
		t.Helper()
		if o := command(t, "", "get", "--ns", "users", "none"); !strings.Contains(o.err, "origin") && !strings.Contains(o.err, "busy") {
			t.Fatal(o)
		}
	}
	everywhere := func(when, want string) {
		t.Helper()
		for where, says := range map[string]func() string{
			"health": func() string { return mustRun(t, "health") },
			"stats":  func() string { return mustRun(t, "stats") },
			"top":    func() string { return mustRun(t, "top", "--once", "--interval", "200ms") },
			"readyz": func() string { return httpPage(t, addr, "/readyz", "sesame-sesame-sesame") },
			"page":   func() string { return html.UnescapeString(httpPage(t, addr, "/", "sesame-sesame-sesame")) },
		} {
			testenv.Succeeds(t, when+" "+where+" says "+want, func() error { // the page is a sample of 1.5 s
				fail() // so that it is of the last minute
				if got := says(); !regexp.MustCompile(want).MatchString(got) {
					return errors.New(got)
				}
				return nil
			})
		}
	}
	stranger := func(when, want string) {
		t.Helper()
		if got := httpPage(t, addr, "/readyz", ""); got != want+"\n" {
			t.Errorf("%s: without the token /readyz says %q", when, got)
		}
	}
	get(0, 9, exitDone)
	has("at first", `(?m)^health +serving$`, `reads +9: 0.0 % hits, 9 loaded, `)
	stranger("at first", "serving")
	if got := httpPage(t, addr, "/", "sesame-sesame-sesame"); !strings.Contains(got, `<p class="state good">serving</p>`) {
		t.Errorf("at first the page has\n%s", got)
	}
	down.Store(true)
	for range 19 {
		fail()
	}
	const failure = `origin of users \(http\): loads failed \d+s ago: failed, or gave an answer that cannot be read: status 503`
	has("while it is away", `health +serving, not well: `+failure+` \(\d+ in a row, breaker (open|half-open)\)`,
		`reads +28: 0.0 % hits, 9 loaded, 0 missing, 0 stale, 19 errors`, `users .* 28 +0.0 % +0 +0 +9 +0 +0 +19 `)
	everywhere("while it is away", failure)
	everywhere("while it is away", `requests of users failed: \d+ of \d+ in the last [0-9ms]+`)
	stranger("while it is away", "serving, not well")
	testenv.Eventually(t, "the breaker's time", func() bool { return strings.Contains(mustRun(t, "stats"), "breaker half-open)") })
	has("after the breaker's time", `breaker half-open\)`, ` half-open\n`)
	down.Store(false)
	get(10, 11, exitDone)
	has("when it is back", `(?m)^health +serving(, not well: requests of users failed: .*)?$`, `hurts +`+failure, ` closed\n`)
}

// TestStatsOfAFullNamespace checks that the page names the namespace that its quota has had entries evicted of.
func TestStatsOfAFullNamespace(t *testing.T) {
	serveWith(t, sidecar.Config{Namespaces: map[string]sidecar.Namespace{"small": {Quota: 64 << 10}, "large": {Quota: 8 << 20}}})
	for i := range 200 {
		for _, ns := range []string{"small", "large"} {
			mustRun(t, "set", fmt.Sprint("key-", i), strings.Repeat("x", 1000), "--ns", ns)
		}
	}
	full := regexp.MustCompile(`not well: namespace small is full: \d+ entries evicted over its quota`)
	for _, about := range []string{"stats", "health"} {
		if page := mustRun(t, about); !full.MatchString(page) || strings.Contains(page, "namespace large is full") {
			t.Error(page)
		}
	}
}

// httpPage returns a page of the HTTP port, asked for with a token, unless that is empty.
func httpPage(t *testing.T, addr, path, token string) string {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, "http://"+addr+path, nil)
	testenv.Must(t, err)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(r)
	testenv.Must(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v\n%s", path, resp.Status, err, b)
	}
	return string(b)
}
