package logs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

type name string // like kv.NodeID

// TestLines checks that each record is one line, in both formats, whatever its values
// are. Empty values are left out.
func TestLines(t *testing.T) {
	var none *int
	var noError error
	attrs := []any{
		"error", errors.New("1 error occurred:\n\t* failed to join\r\n\n"), "joined", errors.Join(errors.New("a"), errors.New("b\u2028c")),
		"text", "one\ntwo\v three", "node", name("a\nb"), "wait", 2500 * time.Millisecond,
		"no_error", noError, "nil", nil, "pointer", none, "list", []string(nil), "empty", "", "zero", 0, "no", false,
	}
	for _, asText := range []bool{true, false} {
		var out bytes.Buffer
		l := Start(&out, Options{Text: asText})
		l.Logger().With("from", "x\ny").Info("a message\nof two lines", attrs...)
		l.Close(time.Minute)
		got := out.String()
		if strings.Count(got, "\n") != 1 || strings.Contains(got, `\n`) || strings.Contains(got, `\t`) || strings.Contains(got, "null") || strings.Contains(got, "nil") {
			t.Errorf("got %s", got)
		}
		for _, want := range []string{"a message; of two lines", "x; y", "1 error occurred:; * failed to join", "a; b; c", "one; two; three", "a; b", "2.5s", "zero"} {
			if !strings.Contains(got, want) {
				t.Errorf("%q lacks %q", got, want)
			}
		}
		for _, bad := range []string{"no_error", "pointer", "list", "empty"} {
			if strings.Contains(got, bad) {
				t.Errorf("%q has %s", got, bad)
			}
		}
	}
}

// TestStrangersText checks that text from outside does not move a cursor or change the
// direction of writing, in both formats, and that its length is limited.
func TestStrangersText(t *testing.T) {
	evil := "\x1b[2J\u009b31m\u202eabc\x00\x7f\xff\U000e0001"
	for _, asText := range []bool{true, false} {
		var out bytes.Buffer
		l := Start(&out, Options{Text: asText})
		l.Logger().Warn(evil, "node", evil, "list", []string{evil}, "error", errors.New(strings.Repeat("é", 100_000)), evil, 1)
		l.Close(time.Minute)
		got := out.String()
		if rest, _ := strings.CutSuffix(got, "\n"); Plain(strings.ReplaceAll(rest, "\ufffd", "")) != strings.ReplaceAll(rest, "\ufffd", "") {
			t.Errorf("text %v: %q", asText, rest)
		}
		if len(got) > 4*maxValue || !strings.Contains(got, "(200000 bytes)") {
			t.Errorf("text %v: %d bytes", asText, len(got))
		}
		if !asText && !json.Valid(out.Bytes()) {
			t.Errorf("not JSON: %s", got)
		}
	}
}

// sink keeps what is written to it.
type sink struct {
	mu  sync.Mutex
	out bytes.Buffer
}

func (s *sink) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(b)
}

// written returns the lines since the last call, within a bubble.
func written(s *sink) []string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := strings.Split(s.out.String(), "\n")
	s.out.Reset()
	return lines[:len(lines)-1]
}

// TestFlood checks the limits: ten lines a minute for one cause about one host, and for
// all causes of an event together fifty lines and then one in two seconds. Lines that are left out are
// summed up by cause, in few lines. The number of remembered events and causes is limited.
func TestFlood(t *testing.T) {
	testenv.Takes(t, time.Second)
	bubble.Test(t, func(t *testing.T) {
		var out sink
		l := Start(&out, Options{Level: slog.LevelDebug})
		defer l.Close(time.Minute)
		log := l.Logger()
		flood := func(log *slog.Logger, args ...any) {
			for i := range 1000 {
				log.Warn("again", append(args, "i", i)...)
			}
		}
		want := func(what string, n int) []string {
			t.Helper()
			got := written(&out)
			if len(got) != n {
				t.Errorf("%s: %d lines, want %d: %.500q", what, len(got), n, got)
			}
			return got
		}
		flood(log)
		want("of one message", maxAlike)
		flood(log, "node", name("a"))
		want("of one message about a host", maxAlike)
		flood(log.With("from", "b"))
		want("of one message about another", maxAlike)
		for range 1000 {
			log.Debug("again")
		}
		want("at debug level", 1000)
		time.Sleep(sumEvery)
		sums := strings.Join(want("sums", 3), "\n")
		for _, s := range []string{`… and 990 more like it in the last 10s: again"`, `"from":"b","left_out":990`, `"node":"a","left_out":990`} {
			if !strings.Contains(sums, s) {
				t.Errorf("%s lacks %s", sums, s)
			}
		}
		time.Sleep(alikeFor)
		want("a minute later", 0)
		for i := range 100_000 {
			log.Warn("again", "node", fmt.Sprint("made up ", i))
		}
		want("about hosts that are made up", maxBurst)
		time.Sleep(sumEvery)
		sums = strings.Join(want("sums", maxSums), "\n")
		if !strings.Contains(sums, "more like it in the last 10s: again") {
			t.Errorf("no sum: %s", sums)
		}
		for _, e := range l.events.m {
			if len(e.m) > maxCauses {
				t.Errorf("%d causes", len(e.m))
			}
		}
		if n := l.Stats().LeftOut; n != 3*990+100_000-maxBurst {
			t.Errorf("%d lines left out", n)
		}
		for range 20 { // ten seconds with lines of many causes
			for i := range 1000 {
				log.Info(fmt.Sprint("of another cause ", i))
			}
			time.Sleep(sumEvery / 20)
		}
		// The messages of a program are its own: each event has a place, and those without one share a budget.
		if n := len(written(&out)); n > maxEvents*(maxAlike+2*maxSums) || len(l.events.m) > maxEvents+1 {
			t.Errorf("%d lines of %d events in %v", n, len(l.events.m), sumEvery)
		}
		for range 3 {
			log.Error("of the operator")
		}
		want("errors, amid all that", 3)
	})
}

// TestFloodCost checks that a line that is left out allocates no memory.
func TestFloodCost(t *testing.T) {
	l := Start(io.Discard, Options{})
	defer l.Close(time.Minute)
	log, err := l.Logger(), errors.New("bad")
	args := []any{"node", name("a"), "error", err}
	line := func() { log.Warn("again", args...) }
	for range 2 * maxAlike {
		line()
	}
	testenv.Allocates(t, "a line", 0, 100, line)
}

// TestLongestLine checks that a line longer than all that may wait is written, if none waits.
func TestLongestLine(t *testing.T) {
	var out bytes.Buffer
	l := Start(&out, Options{})
	long := strings.Repeat("all that is wrong with a file\n", maxWaiting/20)
	if _, err := io.WriteString(l, long); err != nil {
		t.Error(err)
	}
	l.Close(time.Minute)
	if got := out.String(); got != long {
		t.Errorf("%d bytes were written of %d", len(got), len(long))
	}
}

// TestStuckStream checks that a blocked stream costs lines, which are counted and
// reported, but never blocks the caller. Close does not wait for the stream forever.
func TestStuckStream(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		out := &stuck{free: make(chan struct{})}
		l := Start(out, Options{Level: slog.LevelDebug})
		const n = 100_000
		for range n {
			l.Logger().Debug("a line that nobody reads")
		}
		synctest.Wait()
		lost := l.Stats().Lost
		if lost == 0 || len(l.waiting) > maxWaiting {
			t.Errorf("%d lines lost, %d bytes wait", lost, len(l.waiting))
		}
		close(out.free)
		time.Sleep(sumEvery)
		synctest.Wait()
		if got := out.String(); int64(strings.Count(got, "nobody reads")) != n-lost || !strings.Contains(got, fmt.Sprintf(`"lines":%d`, lost)) {
			t.Errorf("%d lines of %d, %d lost: %s", strings.Count(got, "nobody reads"), n, lost, got[max(0, len(got)-300):])
		}
		l.Close(time.Minute)

		out = &stuck{free: make(chan struct{})}
		l = Start(out, Options{})
		l.Logger().Info("the end")
		began := time.Now()
		l.Close(time.Second)
		if d := time.Since(began); d != time.Second {
			t.Errorf("Close took %v", d)
		}
		close(out.free)
		<-l.ended
	})
}

// stuck blocks writes until free is closed.
type stuck struct {
	free chan struct{}
	mu   sync.Mutex
	bytes.Buffer
}

func (s *stuck) Write(b []byte) (int, error) {
	<-s.free
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Buffer.Write(b)
}

func (s *stuck) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Buffer.String()
}

// TestGoneStream checks that a closed stream costs lines.
func TestGoneStream(t *testing.T) {
	r, w, err := os.Pipe()
	testenv.Must(t, err)
	_ = r.Close()
	l := Start(w, Options{})
	l.Logger().Info("to nobody")
	l.Close(time.Minute)
	if s := l.Stats(); s.Lost != 1 || s.Written != 0 {
		t.Errorf("%+v", s)
	}
	_ = w.Close()
}

func TestPlain(t *testing.T) {
	for text, want := range map[string]string{
		"plain, é 世 \U0001f600": "plain, é 世 \U0001f600", "": "", "a\nb\tc\rd": `a\nb\tc\rd`, "\x1b[2J": `\x1b[2J`,
		"\u009b": `\u009b`, "\u202e": `\u202e`, "\xff\xfe": `\xff\xfe`, "\U000e0001": `\U000e0001`, "\ufffd": "\ufffd", "\x7f": `\x7f`,
	} {
		if got := Plain(text); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
	if got := Lines("a\x1b\nb"); got != "a\\x1b\nb" {
		t.Errorf("got %q", got)
	}
}

// FuzzJSON checks that JSON keeps the meaning of a document and returns only printable
// characters.
func FuzzJSON(f *testing.F) {
	f.Add("plain")
	f.Add("\x1b\u009b\u202e\U000e0001\xff\x7f\"\\")
	f.Fuzz(func(t *testing.T, text string) {
		before, err := json.Marshal(map[string]string{text: text})
		testenv.Must(t, err)
		after := JSON(bytes.Clone(before))
		var a, b map[string]string
		if err := errors.Join(json.Unmarshal(before, &a), json.Unmarshal(after, &b)); err != nil {
			t.Fatalf("%v: %q", err, after)
		}
		for k := range a {
			if a[k] != b[k] {
				t.Errorf("%q has become %q", a, b)
			}
		}
		if Plain(string(after)) != string(after) {
			t.Errorf("%q", after)
		}
		if Plain(Plain(text)) != Plain(text) {
			t.Errorf("%q", Plain(text))
		}
	})
}
