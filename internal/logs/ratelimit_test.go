package logs

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// TestCauses checks that the lines of one cause are counted for a minute, and that other
// levels are other causes. A cause gives up its place a minute after it began, unless
// some of its lines were left out.
func TestCauses(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	c := newCauses(rate.Inf)
	lines := func(level slog.Level, message string, n int) (written int) {
		for range n {
			r := slog.NewRecord(now, level, message, 0)
			if c.admit(&r, nil) {
				written++
			}
		}
		return written
	}
	is := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	is("lines of one cause", lines(slog.LevelWarn, "a", 50), maxAlike)
	now = now.Add(alikeFor - time.Millisecond)
	is("within its minute", lines(slog.LevelWarn, "a", 50), 0)
	is("of another level", lines(slog.LevelInfo, "a", 50), maxAlike)
	now = now.Add(time.Millisecond)
	is("in its next minute", lines(slog.LevelWarn, "a", 50), maxAlike)

	c = newCauses(rate.Inf)
	is("a cause of which lines are left out", lines(slog.LevelWarn, "left out", maxAlike+5), maxAlike)
	for i := range maxCauses - 1 {
		is("a cause with a place", lines(slog.LevelWarn, fmt.Sprint("some ", i), 1), 1)
	}
	now = now.Add(alikeFor - time.Millisecond)
	is("causes without a place, together", lines(slog.LevelWarn, "x", maxAlike)+lines(slog.LevelWarn, "y", maxAlike), maxAlike)
	is("causes", len(c.m), maxCauses)
	now = now.Add(time.Millisecond)
	is("a cause that has one again", lines(slog.LevelWarn, "z", 1), 1)
	is("causes after it", len(c.m), 2) // including the cause that is still to be summed up
}

// TestCausesOfAddresses checks that connections from one address are one cause, whatever their ports.
func TestCausesOfAddresses(t *testing.T) {
	c := newCauses(rate.Inf)
	for _, of := range []string{"127.0.0.1", "[::1]", "b"} {
		written := 0
		for i := range 50 {
			from := of
			if of != "b" {
				from = fmt.Sprint(of, ":", 40000+i)
			}
			r := slog.NewRecord(time.Unix(1_000_000, 0), slog.LevelWarn, "connection closed", 0)
			if c.admit(&r, []slog.Attr{slog.String("from", from)}) {
				written++
			}
		}
		if written != maxAlike {
			t.Errorf("%d lines of %s are written, want %d", written, of, maxAlike)
		}
	}
}
