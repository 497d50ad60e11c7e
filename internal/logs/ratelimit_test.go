package logs

import (
	"fmt"
	"log/slog"
	"testing"
	"time"
)

// counting is events, and the moment at which lines come.
type counting struct {
	*events
	now time.Time
}

func newCounting() *counting { return &counting{newEvents(), time.Unix(1_000_000, 0)} }

// lines says a line n times, and returns how often it is written. about, if not "", is a host.
func (c *counting) lines(level slog.Level, message, about string, n int) (written int) {
	for range n {
		r := slog.NewRecord(c.now, level, message, 0)
		r.AddAttrs(slog.String("node", about))
		if c.admit(&r, nil) {
			written++
		}
	}
	return written
}

func is(t *testing.T, what string, got, want int) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %d, want %d", what, got, want)
	}
}

// TestCauses checks that the lines of one cause are counted for a minute, and that other
// levels are other causes. A cause gives up its place a minute after it began, unless
// some of its lines were left out.
func TestCauses(t *testing.T) {
	c := newCounting()
	is(t, "lines of one cause", c.lines(slog.LevelWarn, "a", "", 50), maxAlike)
	c.now = c.now.Add(alikeFor - time.Millisecond)
	is(t, "within its minute", c.lines(slog.LevelWarn, "a", "", 50), 0)
	is(t, "of another level", c.lines(slog.LevelInfo, "a", "", 50), maxAlike)
	c.now = c.now.Add(time.Millisecond)
	is(t, "in its next minute", c.lines(slog.LevelWarn, "a", "", 50), maxAlike)

	c = newCounting()
	const level = slog.LevelError // only the first limit applies
	is(t, "a cause of which lines are left out", c.lines(level, "a", "left out", maxAlike+5), maxAlike)
	for i := range maxCauses - 1 {
		is(t, "a cause with a place", c.lines(level, "a", fmt.Sprint("some ", i), 1), 1)
	}
	c.now = c.now.Add(alikeFor - time.Millisecond)
	is(t, "causes without a place, together", c.lines(level, "a", "x", maxAlike)+c.lines(level, "a", "y", maxAlike), maxAlike)
	for _, e := range c.m {
		is(t, "causes", len(e.m), maxCauses)
	}
	c.now = c.now.Add(time.Millisecond)
	is(t, "a cause that has one again", c.lines(level, "a", "z", 1), 1)
	for _, e := range c.m {
		is(t, "causes after it", len(e.m), 2) // including the cause that is still to be summed up
	}
}

// TestEvents checks that the flood of one event, about ever new hosts, takes no line of another, and that the places of
// events come back. What has no place shares the budget of its level.
func TestEvents(t *testing.T) {
	c := newCounting()
	flood := func(message string) (written int) {
		for i := range 10_000 {
			written += c.lines(slog.LevelWarn, message, fmt.Sprint("made up ", i), 1)
		}
		return written
	}
	is(t, "a flood", flood("a"), maxBurst)
	is(t, "another event", c.lines(slog.LevelWarn, "b", "", 1), 1)
	c.now = c.now.Add(10 * time.Second)
	is(t, "the flood goes on", flood("a"), int(maxRate*10))

	c.sums()
	for i := range maxEvents - 2 {
		is(t, "an event with a place", c.lines(slog.LevelWarn, fmt.Sprint("some ", i), "", 1), 1)
	}
	is(t, "events without a place, together", flood("x")+flood("y"), maxBurst)
	is(t, "those of another level", c.lines(slog.LevelError, "x", "", 1), 1)
	is(t, "events", len(c.m), maxEvents+2)
	c.sums()
	c.now = c.now.Add(alikeFor)
	is(t, "an event that has a place again", c.lines(slog.LevelWarn, "z", "", 1), 1)
	is(t, "events after it", len(c.m), 1)
}

// TestCausesOfAddresses checks that connections from one address are one cause, whatever their ports, and that users
// are causes of their own.
func TestCausesOfAddresses(t *testing.T) {
	c := newCounting()
	for _, of := range []string{"127.0.0.1", "[::1]", "b", "uid"} {
		written := 0
		for i := range 50 {
			about := slog.String("from", fmt.Sprint(of, ":", 40000+i))
			switch of {
			case "b":
				about = slog.String("from", of)
			case "uid":
				about = slog.Any("uid", uint32(1001))
			}
			r := slog.NewRecord(c.now, slog.LevelWarn, "connection closed", 0)
			if c.admit(&r, []slog.Attr{about}) {
				written++
			}
		}
		is(t, "lines of "+of, written, maxAlike)
	}
}
