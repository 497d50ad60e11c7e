package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// terminal is a pseudoterminal. The program has one end as stdin or stdout, the test has
// the other.
type terminal struct {
	ours, its *os.File

	mu   sync.Mutex
	text bytes.Buffer // what the program has written
	more chan struct{}
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudoterminals here: %v", err)
	}
	fd := int(ours.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	its, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	// Output must arrive unchanged: no \r before \n, no echo.
	attr, err := unix.IoctlGetTermios(int(its.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	attr.Oflag &^= unix.OPOST
	attr.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(int(its.Fd()), unix.TCSETS, attr); err != nil {
		t.Fatal(err)
	}
	tt := &terminal{ours: ours, its: its, more: make(chan struct{}, 1)}
	done := make(chan struct{})
	go func() { // ends when its end is closed
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, err := ours.Read(b)
			tt.mu.Lock()
			tt.text.Write(b[:n])
			tt.mu.Unlock()
			select {
			case tt.more <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_, _ = ours.WriteString("\n") // ends a read that waits for a key
		its.Close()
		<-done
		ours.Close()
	})
	return tt
}

// waitFor waits until ok accepts the output, and returns it.
func (tt *terminal) waitFor(t *testing.T, what string, ok func(string) bool) string {
	t.Helper()
	deadline := testenv.Expired()
	for {
		tt.mu.Lock()
		text := tt.text.String()
		tt.mu.Unlock()
		if ok(text) {
			return text
		}
		select {
		case <-tt.more:
		case <-deadline:
			t.Fatalf("waited for %s on the terminal; there is %q", what, text)
		}
	}
}

func TestGetOnTerminal(t *testing.T) {
	serveHere(t)
	mustRun(t, "set", "k", "value")
	if got := mustRun(t, "get", "k"); got != "value" {
		t.Errorf("to a pipe: %q, want no newline", got)
	}
	tt := newTerminal(t)
	if status := commandWith(t, &program{in: strings.NewReader(""), out: tt.its, err: io.Discard}, "get", "k"); status != exitDone {
		t.Fatalf("status %d", status)
	}
	fmt.Fprint(tt.its, "$")
	if got := tt.waitFor(t, "the prompt", func(s string) bool { return strings.HasSuffix(s, "$") }); got != "value\n$" {
		t.Errorf("on a terminal: %q, want a newline", got)
	}
}

const clearScreen = "\x1b[H\x1b[2J"

func TestWatchOnTerminal(t *testing.T) {
	testenv.Takes(t, 2*time.Second)
	serveHere(t)
	for _, noColor := range []bool{false, true} {
		if noColor {
			t.Setenv("NO_COLOR", "1")
		}
		tt := newTerminal(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan int, 1)
		go func() { // ends with ctx
			done <- (&program{in: tt.its, out: tt.its, err: tt.its}).run(ctx, []string{"cachesidecar", "stats", "--watch"})
		}()
		text := tt.waitFor(t, "two pages", func(s string) bool { return strings.Count(s, "NAMESPACE") >= 2 })
		cancel()
		if status := <-done; status != exitDone {
			t.Errorf("status %d", status)
		}
		if n := strings.Count(text, clearScreen); n < 2 || strings.Count(text, "\x1b") != 2*n {
			t.Errorf("the screen is cleared %d times, want 2 or more, and no other escape sequence:\n%q", n, text)
		}
		if !strings.Contains(text, "rates") {
			t.Errorf("the second page has no rates:\n%s", text)
		}
	}
}

// TestWarmOnTerminal checks that warm shows a progress bar on a terminal, and leaves
// nothing of it behind.
func TestWarmOnTerminal(t *testing.T) {
	testenv.Takes(t, time.Second)
	o := serveOrigin(t, sidecar.Namespace{})
	o.takes = 5 * time.Millisecond
	for _, from := range []string{"a file", "stdin"} {
		tt := newTerminal(t)
		var out bytes.Buffer
		p := &program{in: strings.NewReader(many("s%d", 0, 600)), out: &out, err: tt.its}
		file, want := "-", "/-"
		if from == "a file" {
			file, want = listOf(t, many("k%d", 0, 600)), "/600"
		}
		if status := commandWith(t, p, "warm", file, "--ns", "users", "--concurrency", "8"); status != exitDone {
			t.Fatalf("%s: status %d, %s", from, status, out.String())
		}
		fmt.Fprint(tt.its, "$")
		shown := tt.waitFor(t, "the prompt", func(s string) bool { return strings.HasSuffix(s, "$") })
		steps := strings.Split(shown, "\r")
		if len(steps) < 3 || !strings.Contains(shown, want) || !strings.Contains(shown, "keys/s") || strings.Contains(shown, "\x1b[3") {
			t.Errorf("%s: the terminal shows %q", from, shown)
		}
		if last := steps[len(steps)-1]; last != "$" || strings.TrimSpace(steps[len(steps)-2]) != "" {
			t.Errorf("%s: what is left on the terminal is %q", from, steps[len(steps)-2:])
		}
		if summary(out.String()) != "600: 600 loaded, 0 there already, 0 absent, 0 failed\n" {
			t.Errorf("%s: %q", from, out.String())
		}
	}
}

// TestFlushAsks checks that flush asks for confirmation on a terminal, and only there.
func TestFlushAsks(t *testing.T) {
	serveHere(t)
	for _, tc := range []struct {
		name, line, answer string
		question           string // "": it does not ask
		status             int
		dropped            bool
	}{
		{"yes", "flush", "y\n", "Drop everything on every host of the cluster? [y/N] ", exitDone, true},
		{"YES", "flush", "YES\n", "Drop everything on every host of the cluster? [y/N] ", exitDone, true},
		{"no", "flush", "n\n", "Drop everything on every host of the cluster? [y/N] ", exitMiss, false},
		{"only enter", "flush", "\n", "Drop everything on every host of the cluster? [y/N] ", exitMiss, false},
		{"something else", "flush", "yesterday\n", "Drop everything on every host of the cluster? [y/N] ", exitMiss, false},
		{"end of input", "flush", "\x04", "Drop everything on every host of the cluster? [y/N] ", exitMiss, false},
		{"a namespace", "flush --ns default --this-host", "y\n", "Drop namespace default on this host? [y/N] ", exitDone, true},
		{"told before", "flush --yes", "", "", exitDone, true},
		{"told before, shortly", "flush -y", "", "", exitDone, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			mustRun(t, "set", "k", "v")
			tt := newTerminal(t)
			if _, err := tt.ours.WriteString(tc.answer); err != nil {
				t.Fatal(err)
			}
			var out, err bytes.Buffer
			status := commandWith(t, &program{in: tt.its, out: &out, err: &err}, strings.Fields(tc.line)...)
			want := tc.question
			if tc.status != exitDone {
				want += "cachesidecar: nothing dropped\n"
			}
			if status != tc.status || err.String() != want || out.Len() > 0 {
				t.Errorf("status %d, stderr %q, stdout %q\nwant %d, %q and nothing", status, err.String(), out.String(), tc.status, want)
			}
			if gone := command(t, "", "get", "k").status == exitMiss; gone != tc.dropped {
				t.Errorf("dropped: %v, want %v", gone, tc.dropped)
			}
		})
	}
}
