package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/table"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// origin is an origin that a test observes. It does not have keys "none…", and fails for
// keys "bad…".
type origin struct {
	mu    sync.Mutex
	asked []string
	takes time.Duration
	until int          // so many calls succeed; 0: all
	at    atomic.Int64 // concurrent calls
	most  atomic.Int64
}

func (o *origin) Load(ctx context.Context, key []byte) (loader.Value, error) {
	for n := o.at.Add(1); ; {
		if m := o.most.Load(); n <= m || o.most.CompareAndSwap(m, n) {
			break
		}
	}
	defer o.at.Add(-1)
	o.mu.Lock()
	o.asked = append(o.asked, string(key))
	down := o.until > 0 && len(o.asked) > o.until
	o.mu.Unlock()
	time.Sleep(o.takes)
	switch {
	case down, strings.HasPrefix(string(key), "bad"):
		return loader.Value{}, errors.New("the database is out")
	case strings.HasPrefix(string(key), "none"):
		return loader.Value{}, loader.ErrAbsent
	}
	return loader.Value{Bytes: append([]byte("value of "), key...)}, nil
}

// serveOrigin runs a sidecar whose namespace "users" has an origin.
func serveOrigin(t testing.TB, ns sidecar.Namespace) *origin {
	t.Helper()
	o := &origin{}
	ns.Origin = loader.Custom{Source: o}
	serveWith(t, sidecar.Config{Namespaces: map[string]sidecar.Namespace{"users": ns}})
	return o
}

// listOf writes a list of keys to a file.
func listOf(t testing.TB, text string) string {
	t.Helper()
	path := testenv.File(t, text)
	return path
}

func many(format string, from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, format+"\n", i)
	}
	return b.String()
}

// summary returns the output of warm without the time.
func summary(out string) string {
	before, rest, ok := strings.Cut(out, " keys in ")
	_, after, ok2 := strings.Cut(rest, ": ")
	if !ok || !ok2 {
		return out
	}
	return before + ": " + after
}

func TestWarm(t *testing.T) {
	o := serveOrigin(t, sidecar.Namespace{})
	mustRun(t, "set", "--ns", "users", "there", "1")
	file := listOf(t, "a\nb\r\n\nthere\nnone1\nlast without an end")
	for _, tc := range []struct {
		name   string
		args   []string
		in     string
		status int
		out    string
		err    string
		asked  []string
	}{
		{"a file", []string{file}, "", exitDone, "5: 3 loaded, 1 there already, 1 absent, 0 failed\n", "", []string{"a", "b", "last without an end", "none1"}},
		{"again", []string{file}, "", exitDone, "5: 0 loaded, 4 there already, 1 absent, 0 failed\n", "", nil},
		{"stdin", []string{"-", "--rate", "1e6", "--timeout", "5s"}, "c\n", exitDone, "1: 1 loaded, 0 there already, 0 absent, 0 failed\n", "", []string{"c"}},
		{"nothing", []string{"-"}, "\n\n", exitDone, "0: 0 loaded, 0 there already, 0 absent, 0 failed\n", "", nil},
		{"zero bytes", []string{"-", "--null"}, "d\ne\x00\x00f\r\x00g", exitDone, "3: 3 loaded, 0 there already, 0 absent, 0 failed\n", "", []string{"d\ne", "f\r", "g"}},
		{"some fail", []string{"-"}, "h\nbad1\n" + strings.Repeat("k", 1025) + "\n", exitMiss, "3: 1 loaded, 0 there already, 0 absent, 2 failed\n", "\"bad1\": the origin failed: ", []string{"bad1", "h"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o.asked = nil
			got := command(t, tc.in, append([]string{"warm", "--ns", "users"}, tc.args...)...)
			if got.status != tc.status || summary(got.out) != tc.out || !strings.Contains(got.err, tc.err) || tc.err == "" && got.err != "" {
				t.Errorf("%v\nwant status %d, %q and on stderr %q", got, tc.status, tc.out, tc.err)
			}
			slices.Sort(o.asked)
			if !slices.Equal(o.asked, tc.asked) {
				t.Errorf("the origin was asked for %q, want %q", o.asked, tc.asked)
			}
		})
	}
	if got := mustRun(t, "get", "--ns", "users", "a"); got != "value of a" {
		t.Errorf("a is %q", got)
	}
}

// TestWarmNamesFailures checks that ten of many failures are named, and the rest is
// counted. Only consecutive failures end the run.
func TestWarmNamesFailures(t *testing.T) {
	serveOrigin(t, sidecar.Namespace{Limits: sidecar.Limits{Breaker: sidecar.Breaker{Failures: 1000}}})
	one := command(t, strings.Repeat("good\nbad1\nbad2\n", 4), "warm", "-", "--ns", "users", "--stop-after", "3", "--concurrency", "1")
	if summary(one.out) != "12: 1 loaded, 3 there already, 0 absent, 8 failed\n" {
		t.Error(one)
	}
	o := command(t, many("bad%d", 0, 13)+many("k%d", 0, 3), "warm", "-", "--ns", "users", "--stop-after", "0")
	if o.status != exitMiss || strings.Count(o.err, "the origin failed") != 10 || !strings.HasSuffix(o.err, "… and 3 more\n") ||
		summary(o.out) != "16: 3 loaded, 0 there already, 0 absent, 13 failed\n" {
		t.Error(o)
	}
}

func TestWarmJSON(t *testing.T) {
	serveOrigin(t, sidecar.Namespace{})
	o := command(t, "a\n", "warm", "-", "--ns", "users", "--json")
	if o.status != exitDone || o.err != "" {
		t.Fatal(o)
	}
	got := anyNumber.ReplaceAll([]byte(o.out), []byte(`": 0`))
	goldenText(t, "warm.json", string(got))
	var w warmResult
	if err := json.Unmarshal([]byte(o.out), &w); err != nil || w.Keys != 1 || w.Loaded != 1 || w.DurationMS <= 0 {
		t.Errorf("%+v, %v", w, err)
	}
}

// TestWarmSparesTheOrigin checks that the origin gets no more concurrent calls, and no
// more calls a second, than allowed. If it sheds load itself, the keys are requested
// again.
func TestWarmSparesTheOrigin(t *testing.T) {
	testenv.Takes(t, time.Second)
	testenv.ReadsClock(t, 200*time.Millisecond, "30 loads at 100 a second may not end sooner")
	o := serveOrigin(t, sidecar.Namespace{})
	o.takes = 5 * time.Millisecond
	if got := command(t, many("a%d", 0, 60), "warm", "-", "--ns", "users", "--concurrency", "3"); got.status != exitDone || o.most.Load() != 3 {
		t.Errorf("%d at once, want 3: %v", o.most.Load(), got)
	}
	begun := time.Now()
	got := command(t, many("a%d", 0, 60)+many("b%d", 0, 30), "warm", "-", "--ns", "users", "--rate", "100")
	if took := time.Since(begun); got.status != exitDone || took < 200*time.Millisecond {
		t.Errorf("30 loads at 100/s took %v: %v", took, got)
	}
	o = serveOrigin(t, sidecar.Namespace{Limits: sidecar.Limits{Concurrency: 1, Queue: 1, QueueTime: 5 * time.Millisecond}})
	o.takes = 5 * time.Millisecond
	got = command(t, many("c%d", 0, 60), "warm", "-", "--ns", "users", "--timeout", "1m")
	if summary(got.out) != "60: 60 loaded, 0 there already, 0 absent, 0 failed\n" || o.most.Load() != 1 {
		t.Errorf("%d at once, want 1: %v", o.most.Load(), got)
	}
}

// linesFrom returns what tail -n +N returns of a text.
func linesFrom(text string, n int) string {
	return strings.Join(strings.SplitAfter(text, "\n")[n-1:], "")
}

// goesOn returns the line at which a run that has ended early says to go on. of is the list if it is no file;
// done is what the lines before are.
func goesOn(t testing.TB, said, of, done string) (line int) {
	t.Helper()
	_, after, _ := strings.Cut(said, "Every line"+of+" before line ")
	var again int
	if _, err := fmt.Sscanf(after, "%d is "+done+". With the same flags this goes on there: tail -n +%d FILE | cachesidecar warm -\n", &line, &again); err != nil || again != line {
		t.Fatalf("%v, in:\n%s", err, said)
	}
	return line
}

// TestLengthyWarmGoesOn checks that a run ends if its origin is down, and that the run of the lines that it
// names does the rest. Empty lines count.
func TestLengthyWarmGoesOn(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	o := serveOrigin(t, sidecar.Namespace{Limits: sidecar.Limits{Breaker: sidecar.Breaker{Failures: 1 << 20}}})
	list := "\n\n" + many("k%d", 0, 3000)
	line := []string{"warm", "-", "--ns", "users", "--concurrency", "1", "--stop-after", "5"}
	o.until = 1500
	first := command(t, list, line...)
	var n, asked int
	if _, err := fmt.Sscanf(first.out, "%d,%d keys", &n, &asked); err != nil {
		t.Fatal(first, err)
	}
	done := 1000*n + asked - 5
	if from := goesOn(t, first.err, " of stdin", "done, or failed"); first.status != exitMiss || done < 1490 || done > 2990 || from != done+3 ||
		!strings.Contains(first.err, "5 keys in a row failed (--stop-after), the last because: the origin failed: ") {
		t.Fatalf("%v\nwant the line %d", first, done+3)
	}
	o.until, o.asked = 0, nil
	second := command(t, linesFrom(list, done+3), line...)
	want := fmt.Sprintf("%s: %[1]s loaded, 0 there already, 0 absent, 0 failed\n", table.Count(int64(3000-done)))
	if second.status != exitDone || summary(second.out) != want || len(o.asked) != 3000-done || o.asked[0] != fmt.Sprint("k", done) {
		t.Errorf("%v\nwant %q", second, want)
	}
}

// TestWarmAdvances checks that no key before the line that warm says is pending, and that it asks again
// for those that failed last.
func TestWarmAdvances(t *testing.T) {
	for _, tc := range []struct {
		name    string
		results []uint8
		want    int64 // keys[i] is on line 2i+5
	}{
		{"all", []uint8{loaded, present, absent}, 9},
		{"one in between failed", []uint8{loaded, failed, absent}, 9},
		{"the last failed", []uint8{loaded, failed, failed}, 5},
		{"one in between is pending", []uint8{loaded, pending, loaded}, 5},
		{"pending behind a failed one", []uint8{present, failed, pending}, 5},
		{"the first is pending", []uint8{pending, loaded, loaded}, 3},
		{"all failed", []uint8{failed, failed, failed}, 3},
	} {
		w := &warmer{line: 3}
		w.advance([]listedKey{{5, "a"}, {7, "b"}, {9, "c"}}, tc.results)
		if w.line != tc.want {
			t.Errorf("%s: line %d, want %d", tc.name, w.line, tc.want)
		}
	}
}

func TestWarmErrors(t *testing.T) {
	serveOrigin(t, sidecar.Namespace{})
	dir := tempDir(t)
	for _, tc := range []struct {
		name, in string
		args     []string
		want     string
	}{
		{"no file", "", []string{filepath.Join(dir, "none"), "--ns", "users"}, "cannot read the keys: open "},
		{"a folder", "", []string{dir, "--ns", "users"}, "cannot read the keys: read "},
		{"no origin", "", []string{"-"}, `namespace "default" has no origin on this host, so there is nothing to load its keys from`},
		{"no list", strings.Repeat("x", 70_000), []string{"-", "--ns", "users"}, "stdin: line 1 is longer than 65536 bytes: is it a list of keys?"},
	} {
		command(t, tc.in, append([]string{"warm"}, tc.args...)...).fails(t, tc.name, exitMiss, tc.want)
	}
}

// TestLengthyWarmInterrupted interrupts a warm process that uses a sidecar with an HTTP origin.
func TestLengthyWarmInterrupted(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	var asked atomic.Int64
	answers := make(chan struct{}, 5000) // as many as the origin may give
	allow := func(n int) {
		for range n {
			answers <- struct{}{}
		}
	}
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		select {
		case <-answers:
		case <-r.Context().Done():
		}
		fmt.Fprint(w, r.URL.Path)
	}))
	defer slow.Close()
	config := testenv.File(t, "namespaces: {users: {origin: {http: {url: '"+slow.URL+"/{key}'}}}}\n")
	s := runSidecar(t, "--config", config)
	list := many("k%d", 0, 2000)
	line := []string{"--ns", "users", "--concurrency", "8", "--socket", s.socket}
	allow(100)
	p := launch(t, exec.Command(binary(), append([]string{"warm", listOf(t, list)}, line...)...))
	testenv.Eventually(t, "some keys", func() bool { return asked.Load() > 100 })
	p.signal(syscall.SIGINT)
	p.ends(exitMiss)
	from, first := goesOn(t, p.log.String(), "", "done"), asked.Load()
	if from < 30 || int64(from) > first+1 || !strings.Contains(p.log.String(), "cachesidecar: interrupted\n") {
		t.Fatalf("line %d after %d requests:\n%s", from, first, p.log)
	}
	allow(1908)
	o := runBinary(t, append([]string{"warm", listOf(t, linesFrom(list, from))}, line...)...)
	if o.status != exitDone || o.err != "" || !strings.HasPrefix(o.out, fmt.Sprintf("%s keys in ", table.Count(int64(2001-from)))) ||
		!strings.HasSuffix(o.out, " absent, 0 failed\n") || asked.Load() < 2000 || asked.Load() > 2000+8 || first > 1900 {
		t.Errorf("from line %d %d and %d requests, want 2,000 and up to 8 that were cut short: %v", from, first, asked.Load()-first, o)
	}
	// The sidecar is killed.
	p = launch(t, exec.Command(binary(), "warm", listOf(t, many("x%d", 0, 2000)), "--ns", "users", "--socket", s.socket))
	first = asked.Load()
	testenv.Eventually(t, "some keys", func() bool { return asked.Load() > first })
	s.signal(syscall.SIGKILL)
	if status := p.wait(); status != exitConnect || strings.Contains(p.log.String(), "--stop-after") {
		t.Errorf("status %d without a sidecar:\n%s", status, p.log)
	}
}

// FuzzKeyList checks that the keys are the non-empty parts between zero bytes, or the
// non-empty lines, and their numbers those of tail.
func FuzzKeyList(f *testing.F) {
	f.Add([]byte("a\nb\r\n\nc"), false)
	f.Add([]byte("a\x00\x00b\n\x00c"), true)
	f.Fuzz(func(t *testing.T, b []byte, null bool) {
		if len(b) >= maxKeyLine {
			return
		}
		var want []listedKey
		var line int64
		sep := "\n"
		if null {
			sep = "\x00"
		}
		for part := range strings.SplitSeq(string(b), sep) {
			if !null {
				part = strings.TrimSuffix(part, "\r")
			}
			if line++; part != "" {
				want = append(want, listedKey{line, part})
			}
		}
		var got []listedKey
		for l := newKeyList(io.NopCloser(bytes.NewReader(b)), "list", null); ; {
			keys, err := l.readKeys(t.Context(), 3)
			testenv.Must(t, err)
			if len(keys) == 0 {
				break
			}
			got = append(got, keys...)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", b, got, want)
		}
	})
}
