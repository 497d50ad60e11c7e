package httpd

import (
	"bufio"
	"context"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const hostile = "</script><script>alert(1)</script>\ndata: x\u202e"

// fake is a host that has read 100 keys more, 80 of them with a hit, each time it is asked.
type fake struct{ asked atomic.Int64 }

func (h *fake) snapshot() (telemetry.Snapshot, bool) {
	n := h.asked.Add(1)
	st := cachesidecar.Stats{
		Node: hostile, Server: hostile, UptimeMS: 10_000 + 2000*n, NotReady: hostile,
		Namespaces: []cachesidecar.NamespaceStats{{
			Name: hostile, Hits: 80 * n, Misses: 20 * n, Writes: 10 * n,
			Loads: cachesidecar.LoadStats{Origin: hostile, Breaker: "open", BreakerOpen: true, Loads: 4 * n},
			Failures: []cachesidecar.FailureStats{
				{Calls: "loads", Error: hostile, InARow: 1},
			},
		}},
	}
	return telemetry.Snapshot{
		Stats: st, Members: []cachesidecar.Member{{Node: hostile, Address: hostile, State: "in", Why: hostile}},
		Tiers:   []telemetry.Tier{{Name: "own entries", Reads: 80 * n}, {Name: "no value", Reads: 20 * n}},
		Batches: []telemetry.Bucket{{Seconds: 1e-3, Count: uint64(n)}, {Seconds: math.Inf(1), Count: uint64(n)}},
	}, true
}

func (h *fake) page() *page {
	return newPage(h.snapshot, maxStreams)
}

// get returns the page.
func get(p *page) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	p.serve(w, httptest.NewRequest(http.MethodGet, "/", nil))
	return w
}

// TestPageEscapes checks that no name gets into the markup, and that the policy allows the
// script and the style of the page and nothing else.
func TestPageEscapes(t *testing.T) {
	w := get((&fake{}).page())
	body := w.Body.String()
	if strings.Count(body, "<script") != 1 || strings.Contains(body, "\u202e") || strings.Contains(body, "\ndata: x") {
		t.Errorf("a name is in the markup:\n%s", body)
	}
	if n := strings.Count(body, "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;"); n < 8 {
		t.Errorf("the names are shown %d times:\n%s", n, body)
	}
	csp := w.Header().Get("Content-Security-Policy")
	for _, tag := range []string{"style", "script"} {
		m := regexp.MustCompile("(?s)<" + tag + ">(.*)</" + tag + ">").FindStringSubmatch(body)
		if m == nil || !strings.Contains(csp, tag+"-src '"+sourceOf(m[1])+"'") {
			t.Errorf("the policy %q does not allow the page's %s", csp, tag)
		}
	}
	if strings.Contains(csp, "unsafe") || strings.Contains(body, "style=") || strings.Contains(body, " on") && regexp.MustCompile(`<[^>]+ on[a-z]+=`).MatchString(body) {
		t.Errorf("policy %q; the page has inline styles or handlers", csp)
	}
	if w.Header().Get("Content-Type") != "text/html; charset=utf-8" || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("%v", w.Header())
	}
}

// TestPageState checks that the page is good only if nothing is wrong, and that it names what
// is: no more of it than fits.
func TestPageState(t *testing.T) {
	for _, tc := range []struct {
		name         string
		change       func(*cachesidecar.Stats)
		class, words string
		lines        int
	}{
		{"well", func(*cachesidecar.Stats) {}, "good", "serving", 0},
		{"missing", func(st *cachesidecar.Stats) { st.Members = map[string]int64{"missing": 2} }, "bad", "serving, not well", 1},
		{"not joined", func(st *cachesidecar.Stats) { st.NotReady = "not joined" }, "bad", "not ready", 1},
		{"much", func(st *cachesidecar.Stats) { st.Shares = make([]cachesidecar.ShareStats, 100) }, "bad", "serving, not well", maxWrong + 1},
	} {
		w := get(newPage(func() (telemetry.Snapshot, bool) {
			st := cachesidecar.Stats{Node: "a"}
			tc.change(&st)
			for i := range st.Shares {
				st.Shares[i] = cachesidecar.ShareStats{Used: 1, Limit: 1}
			}
			return telemetry.Snapshot{Stats: st}, true
		}, maxStreams))
		body := w.Body.String()
		list, _, _ := strings.Cut(body, `<ul class="tiles">`)
		if n := strings.Count(list, "<li>"); n != tc.lines || !strings.Contains(body, `<p class="state `+tc.class+`">`+tc.words+`</p>`) {
			t.Errorf("%s: %d lines\n%s", tc.name, n, list)
		}
	}
}

// TestPageAndEvent checks that the first event has what the document has, to the byte: the
// script then changes nothing, and a selection made before it stays.
func TestPageAndEvent(t *testing.T) {
	document, event, err := (&fake{}).page().draw()
	testenv.Must(t, err)
	data := strings.TrimSuffix(regexp.MustCompile("(?m)^data: ").ReplaceAllString(string(event), ""), "\n\n")
	_, rest, _ := strings.Cut(string(document), "<main>")
	if main, _, _ := strings.Cut(rest, "</main>"); main != data {
		t.Errorf("the event has\n%q\nand the document\n%q", data, main)
	}
}

// TestPageRates checks that rates are since the start at first, and then since the last
// sample; and that requests within a sample's time share it.
func TestPageRates(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := &fake{}
		p := h.page()
		for _, step := range []struct {
			after time.Duration
			asked int64
			want  []string
		}{
			{0, 1, []string{"since the start, 12 s ago", `<span class="value">8.3<`, `<span class="value">80.0 %<`}},
			{time.Second, 1, []string{"since the start"}},
			{time.Second, 2, []string{"over the last 2 s", `<span class="value">50<`, ">5.0<", ">2.0<"}},
			{2 * time.Second, 3, []string{"<polyline"}},
			{time.Minute, 4, []string{`<span class="value">50<`}},
		} {
			time.Sleep(step.after)
			body := get(p).Body.String()
			for _, want := range step.want {
				if !strings.Contains(body, want) {
					t.Errorf("after %v: no %q in\n%s", step.after, want, body)
				}
			}
			if got := h.asked.Load(); got != step.asked {
				t.Errorf("after %v the host was asked %d times, want %d", step.after, got, step.asked)
			}
		}
		if strings.Contains(get(p).Body.String(), "<polyline") {
			t.Error("a course goes on over a minute without samples")
		}
	})
}

// TestPageWhileClosing checks that a host without statistics still has a page.
func TestPageWhileClosing(t *testing.T) {
	p := newPage(func() (telemetry.Snapshot, bool) { return telemetry.Snapshot{}, false }, maxStreams)
	w := get(p)
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "stopping") || strings.Contains(w.Body.String(), "alone") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestStreams checks that many streams share the samples, that there is a most, and that a
// stream ends with its request and gives its place back.
func TestStreams(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := &fake{}
		p := h.page()
		conns := make(pipes)
		srv := &http.Server{Handler: http.HandlerFunc(p.serveEvents)}
		var wg sync.WaitGroup
		wg.Go(func() { _ = srv.Serve(conns) })
		transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			near, far := net.Pipe()
			conns <- far
			return near, nil
		}}
		follow := func() *http.Response {
			r, err := (&http.Client{Transport: transport}).Get("http://host/events")
			testenv.Must(t, err)
			return r
		}
		var streams []*http.Response
		for range maxStreams {
			r := follow()
			line, err := bufio.NewReader(r.Body).ReadString('\n')
			if err != nil || line != "data: <header>\n" || r.Header.Get("Content-Type") != "text/event-stream" {
				t.Fatalf("%q %v %v", line, err, r.Header)
			}
			streams = append(streams, r)
		}
		if n := h.asked.Load(); n != 1 {
			t.Errorf("%d streams took %d samples", maxStreams, n)
		}
		streams = append(streams, follow()) // it ends the oldest one
		if _, err := io.ReadAll(streams[0].Body); err != nil || p.streams.len() != maxStreams {
			t.Errorf("one more stream: %v, %d are open", err, p.streams.len())
		}
		for _, r := range streams {
			_ = r.Body.Close()
		}
		if synctest.Wait(); p.streams.len() > 0 {
			t.Errorf("%d streams have not ended", p.streams.len())
		}
		transport.CloseIdleConnections()
		close(conns)
		wg.Wait()
		_ = srv.Close()
	})
}

// len returns how many streams are open.
func (l *streams) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

// TestStreamsOfOneOwner checks that an owner which takes all streams loses its own to
// others, and keeps the rest.
func TestStreamsOfOneOwner(t *testing.T) {
	var l streams
	ended := func(s *stream) bool {
		select {
		case <-s.ended:
			return true
		default:
			return false
		}
	}
	first := l.enter("uid 1", 4)
	var greedy []*stream
	for range 10 {
		greedy = append(greedy, l.enter("uid 2", 4))
	}
	other := l.enter("10.0.0.1", 4)
	if ended(first) || ended(other) || ended(greedy[9]) || ended(greedy[8]) || !ended(greedy[7]) || l.len() != 4 {
		t.Errorf("of four streams others have lost theirs; %d are open", l.len())
	}
	for _, s := range append(greedy, first, other) {
		l.leave(s)
	}
	if l.len() != 0 {
		t.Errorf("%d streams have not ended", l.len())
	}
}

// TestStreamNotRead checks that a stream whose client does not read ends.
func TestStreamNotRead(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		p := (&fake{}).page()
		conns := make(chan net.Conn, 1)
		conns <- far
		srv := &http.Server{Handler: http.HandlerFunc(p.serveEvents), ReadTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second}
		var wg sync.WaitGroup
		wg.Go(func() { _ = srv.Serve(pipes(conns)) })
		_, _ = io.WriteString(near, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := bufio.NewReader(near).ReadString('\n'); err != nil { // then it reads no more
			t.Fatal(err)
		}
		began := time.Now()
		for p.streams.len() > 0 && time.Since(began) < time.Minute {
			time.Sleep(time.Second)
		}
		if took := time.Since(began); took > eventTime+interval {
			t.Errorf("the stream has ended after %v", took)
		}
		_ = near.Close()
		close(conns)
		wg.Wait()
		_ = srv.Close()
	})
}

// TestStreamIsLong checks that a stream outlives the server's limits of a request.
func TestStreamIsLong(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		conns := make(chan net.Conn, 1)
		conns <- far
		srv := &http.Server{
			Handler:     http.HandlerFunc((&fake{}).page().serveEvents),
			ReadTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second,
		}
		var wg sync.WaitGroup
		wg.Go(func() { _ = srv.Serve(pipes(conns)) })
		_, _ = io.WriteString(near, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
		events, lines := 0, bufio.NewScanner(near)
		for began := time.Now(); time.Since(began) < time.Minute && lines.Scan(); {
			if lines.Text() == "data: <header>" {
				events++
			}
		}
		if events < 29 {
			t.Errorf("%d events in a minute, then %v", events, lines.Err())
		}
		_ = near.Close()
		close(conns)
		wg.Wait()
		_ = srv.Close()
	})
}

func TestQuantile(t *testing.T) {
	now := []telemetry.Bucket{{Seconds: 1, Count: 50}, {Seconds: 4, Count: 90}, {Seconds: math.Inf(1), Count: 100}}
	last := []telemetry.Bucket{{Seconds: 1, Count: 50}, {Seconds: 4, Count: 50}, {Seconds: math.Inf(1), Count: 50}}
	for _, tc := range []struct {
		name string
		last []telemetry.Bucket
		q    float64
		want time.Duration
	}{
		{"half", nil, 0.5, time.Second},
		{"within a bucket", nil, 0.7, 2500 * time.Millisecond},
		{"above the last bound", nil, 0.99, 4 * time.Second},
		{"of the increase", last, 0.4, 2500 * time.Millisecond},
		{"nothing new", now, 0.5, 0},
	} {
		if got := quantile(now, tc.last, tc.q); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
	if got := quantile(nil, nil, 0.5); got != 0 {
		t.Errorf("nothing: %v", got)
	}
}

func TestFigures(t *testing.T) {
	for got, want := range map[string]string{
		perSecond(0): "0", perSecond(0.01): "< 0.1", perSecond(3.14): "3.1", perSecond(12345.6): "12,346",
		short(0): "0 µs", short(1500 * time.Microsecond): "1.5 ms", short(90 * time.Second): "1 min 30 s",
		short(999_600 * time.Microsecond): "999.6 ms", short(3 * time.Second): "3 s", short(1234567): "1.23 ms",
		long(59 * time.Second): "59 s", long(61 * time.Second): "1 min 1 s", long(3 * time.Hour): "3 h 0 min",
		long(50 * time.Hour): "2 days 2 h", percent(0.1234): "12.3 %", size(-1): "0 B",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
