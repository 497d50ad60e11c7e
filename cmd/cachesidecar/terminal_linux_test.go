package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/pty"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

func TestGetOnTerminal(t *testing.T) {
	serveHere(t)
	mustRun(t, "set", "k", "value")
	if got := mustRun(t, "get", "k"); got != "value" {
		t.Errorf("to a pipe: %q, want no newline", got)
	}
	tt := pty.Open(t)
	if status := commandWith(t, &program{in: strings.NewReader(""), out: tt.Its, err: io.Discard}, "get", "k"); status != exitDone {
		t.Fatalf("status %d", status)
	}
	fmt.Fprint(tt.Its, "$")
	if got := tt.WaitFor(t, "the prompt", func(s string) bool { return strings.HasSuffix(s, "$") }); got != "value\n$" {
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
		tt := pty.Open(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan int, 1)
		go func() { // ends with ctx
			done <- (&program{in: tt.Its, out: tt.Its, err: tt.Its}).run(ctx, []string{"cachesidecar", "stats", "--watch"})
		}()
		text := tt.WaitFor(t, "two pages", func(s string) bool { return strings.Count(s, "NAMESPACE") >= 2 })
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
		tt := pty.Open(t)
		var out bytes.Buffer
		p := &program{in: strings.NewReader(many("s%d", 0, 600)), out: &out, err: tt.Its}
		file, want := "-", "/-"
		if from == "a file" {
			file, want = listOf(t, many("k%d", 0, 600)), "/600"
		}
		if status := commandWith(t, p, "warm", file, "--ns", "users", "--concurrency", "8"); status != exitDone {
			t.Fatalf("%s: status %d, %s", from, status, out.String())
		}
		fmt.Fprint(tt.Its, "$")
		shown := tt.WaitFor(t, "the prompt", func(s string) bool { return strings.HasSuffix(s, "$") })
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
			tt := pty.Open(t)
			testenv.Must(t, testenv.ErrorOf(tt.Ours.WriteString(tc.answer)))
			var out, err bytes.Buffer
			status := commandWith(t, &program{in: tt.Its, out: &out, err: &err}, strings.Fields(tc.line)...)
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
