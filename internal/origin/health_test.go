package origin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

var errRefused = &net.OpError{Op: "dial", Err: fmt.Errorf("10.1.2.3:80: %w", syscall.ECONNREFUSED)}

// failing is an origin that answers with what err points to.
type failing struct{ err *error }

func (failing) Kind() string     { return "http" }
func (failing) Descriptors() int { return 0 }
func (f failing) Open(o loader.OriginOptions) (*loader.Origin, error) {
	opened := &loader.Origin{
		Source:  loader.SourceFunc(func(context.Context, []byte) (loader.Value, error) { return loader.Value{}, *f.err }),
		Secrets: []string{"s3cret"},
	}
	if o.WriteThrough {
		opened.Writer = f
	}
	return opened, nil
}
func (f failing) Store(context.Context, []byte, loader.Value) error { return *f.err }
func (f failing) Delete(context.Context, []byte) error              { return *f.err }

// openFailing opens such an origin. log returns the lines since its last call, without
// their times.
func openFailing(t *testing.T, err *error, s Settings) (o *Origin, log func() string) {
	t.Helper()
	var text bytes.Buffer
	noTime := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	s.Origin = failing{err}
	o, bad := Open("users", s, nil, Host{Node: "a", MaxValue: 1 << 20, Log: slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{ReplaceAttr: noTime}))})
	testenv.Must(t, bad)
	return o, func() string {
		defer text.Reset()
		return strings.ReplaceAll(text.String(), " namespace=users origin=http", "")
	}
}

// TestErrorNamesItsLine checks that an app's error names the host, the line and the time of
// the line that has the origin's own words: also a failure that has no line of its own.
func TestErrorNamesItsLine(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		err := fmt.Errorf("own words: %w", errRefused)
		s := Settings{Origin: failing{&err}, Guard: loader.GuardConfig{Breaker: loader.Breaker{Failures: 1000}}, WriteThrough: true}
		o, bad := Open("users", s, nil, Host{Node: "web-1", MaxValue: 1 << 20, Log: slog.New(slog.NewTextHandler(&log, nil))})
		testenv.Must(t, bad)
		named := regexp.MustCompile(`; the log of host web-1 has its words: look for "(.*)" at (.{19})\S*$`)
		for i, after := range []time.Duration{0, time.Second, time.Minute, time.Second} {
			time.Sleep(after)
			_, load := o.Load(t.Context(), []byte("k"))
			for _, e := range []error{load, o.Write(t.Context(), []byte("k"), &loader.Value{})} {
				m := named.FindStringSubmatch(e.Error())
				if m == nil || strings.Contains(e.Error(), "own words") || !strings.Contains(e.Error(), "connection refused") {
					t.Fatalf("failure %d: %v", i, e)
				}
				line := regexp.MustCompile(`(?m)^time=` + m[2] + `\S* level=WARN msg="` + m[1] + `".*own words`)
				if !line.MatchString(log.String()) {
					t.Errorf("failure %d: %v\nis not in\n%s", i, e, log.String())
				}
			}
		}
		if n := strings.Count(log.String(), "\n"); n != 4 {
			t.Errorf("%d lines:\n%s", n, log.String())
		}
	})
}

// TestOutage follows an origin through an outage of an hour, with five loads a second: the
// first failure, the opening of the breaker, one line per minute, the recovery, the
// closing.
func TestOutage(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var err error
		o, log := openFailing(t, &err, Settings{})
		load := func() { _, _ = o.Load(t.Context(), []byte("k")) }
		is := func(when, want string) {
			t.Helper()
			if got := log(); got != want {
				t.Errorf("%s the log has:\n%swant:\n%s", when, got, want)
			}
		}
		load()
		is("at first", "")
		if f := o.Failures(); len(f) != 1 || f[0].Calls != "loads" || f[0].Error != "" || f[0].AgeMS != 0 || f[0].InARow != 0 {
			t.Errorf("at first: %+v", f)
		}

		err = fmt.Errorf("s3cret: %w", errRefused)
		const text = `error="(secret): dial: 10.1.2.3:80: connection refused"`
		load()
		is("after a failure", `level=WARN msg="a load failed" `+text+"\n")
		for range 4 {
			load()
		}
		is("after five", `level=WARN msg="the breaker before an origin opened: loads are refused" failures=5`+
			` error="could not be reached: connection refused"`+"\n")
		time.Sleep(3 * time.Second)
		f := o.Failures()[0]
		if f.InARow != 5 || f.AgeMS != 3000 || f.Error != "could not be reached: connection refused" {
			t.Errorf("after five: %+v", f)
		}
		if o.Guard.Breaker() != "open" {
			t.Errorf("the breaker is %s", o.Guard.Breaker())
		}

		// Without a call, its time ends all the same.
		time.Sleep(2*time.Second + time.Millisecond)
		o.loads.sees(o.Guard)
		if o.Guard.Breaker() != "half-open" {
			t.Errorf("after its time the breaker is %s", o.Guard.Breaker())
		}
		is("after the breaker's time", `level=INFO msg="the breaker before an origin is half-open: the next load tries the origin"`+"\n")

		lines := 0
		for range 3600 * 5 {
			load()
			if text := log(); text != "" {
				lines++
				if !strings.Contains(text, "loads from an origin still fail") || !strings.Contains(text, "failures=1") ||
					strings.Count(text, "\n") != 1 {
					t.Fatal(text)
				}
			}
			time.Sleep(200 * time.Millisecond)
		}
		if lines < 55 || lines > 60 {
			t.Errorf("%d lines in an hour, want one a minute", lines)
		}

		err = nil
		time.Sleep(6 * time.Second)
		load()
		got := log()
		if !strings.Contains(got, `level=INFO msg="loads from an origin succeed again" failures=`) ||
			!strings.Contains(got, `level=INFO msg="the breaker before an origin closed" openings=`) ||
			strings.Count(got, "\n") != 2 {
			t.Errorf("after the first success:\n%s", got)
		}
		if f := o.Failures()[0]; f.InARow != 0 || f.Error == "" || o.Guard.Breaker() != "closed" {
			t.Errorf("after the first success: %+v, the breaker is %s", f, o.Guard.Breaker())
		}
	})
}

// TestFlapping checks that an origin that fails every other time gets two lines a minute,
// which count what the others would have said.
func TestFlapping(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var err error
		o, log := openFailing(t, &err, Settings{})
		for i := range 601 { // two minutes
			if err = nil; i%2 == 0 {
				err = errRefused
			}
			_, _ = o.Load(t.Context(), []byte("k"))
			time.Sleep(200 * time.Millisecond)
		}
		got := log()
		if strings.Count(got, "a load failed") != 3 || strings.Count(got, "succeed again") != 2 ||
			strings.Count(got, "failures=150 in_a_row=1") != 2 || strings.Count(got, "\n") != 5 {
			t.Error(got)
		}
	})
}

// TestFailuresOfWrites checks that writes are followed apart from loads, and which
// results are failures.
func TestFailuresOfWrites(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var err error
		o, log := openFailing(t, &err, Settings{WriteThrough: true})
		for _, tc := range []struct {
			name string
			err  error
			row  int64
		}{
			{"done", nil, 0},
			{"refused", fmt.Errorf("%w: %w", loader.ErrNotWritten, loader.ErrPermanent), 1},
			{"given up", context.Canceled, 1},
			{"not asked", loader.ErrBusy, 1},
			{"of no key", loader.ErrBadKey, 1},
			{"late", context.DeadlineExceeded, 2},
			{"absent", loader.ErrAbsent, 0},
		} {
			err = tc.err
			_ = o.Write(t.Context(), []byte("k"), nil)
			if f := o.Failures(); f[1].Calls != "writes" || f[1].InARow != tc.row || f[0].InARow != 0 {
				t.Errorf("%s: %+v, want %d in a row", tc.name, f, tc.row)
			}
		}
		if got := log(); strings.Count(got, "a write to an origin failed") != 1 || strings.Count(got, "\n") != 2 {
			t.Error(got)
		}
	})
}

// withState is an error with an SQLSTATE.
type withState string

func (withState) Error() string      { return "tester@10.1.2.3" }
func (s withState) SQLState() string { return string(s) }

// TestCauses checks what STATS may tell of an error: nothing that the origin has chosen.
func TestCauses(t *testing.T) {
	exited := exec.Command("sh", "-c", "exit 3").Run()
	for _, tc := range []struct {
		err  error
		want string
	}{
		{errRefused, "could not be reached: connection refused"},
		{&net.OpError{Op: "dial", Err: &net.DNSError{Name: "db.internal", IsNotFound: true}}, "could not be reached: no such host"},
		{withState("57P03"), "failed, or gave an answer that cannot be read: SQLSTATE 57P03"},
		{withState("\x1b[2J"), "failed, or gave an answer that cannot be read"},
		{exited, "failed, or gave an answer that cannot be read: exit status 3"},
		{context.DeadlineExceeded, "did not answer in its time"},
		{fmt.Errorf("%w: tester@10.1.2.3", loader.ErrFeed), "does not fit the settings of the feed"},
		{fmt.Errorf("%w: %w", loader.ErrGap, withState("42704")), "cannot send some changes any more: SQLSTATE 42704"},
		{errors.New("tester@10.1.2.3"), "failed, or gave an answer that cannot be read"},
		{&fs.PathError{Path: "/etc/secret", Err: syscall.ENOENT}, "failed, or gave an answer that cannot be read: no such file or directory"},
	} {
		if _, got := Told(tc.err); got != tc.want {
			t.Errorf("%v: %q, want %q", tc.err, got, tc.want)
		}
	}
}
