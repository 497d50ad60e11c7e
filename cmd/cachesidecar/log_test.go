package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/proctest"
)

// A line of the log is one line, in both formats, whatever its values are; a value
// that is empty is left out.
func TestLogLines(t *testing.T) {
	var none *int
	var noError error
	attrs := []any{
		"error", errors.New("1 error occurred:\n\t* failed to join\r\n\n"), "joined", errors.Join(errors.New("a"), errors.New("b\u2028c")),
		"text", "one\ntwo\v three", "node", kv.NodeID("a\nb"), "wait", 2500 * time.Millisecond, "bytes", kv.Epoch(7),
		"no_error", noError, "nil", nil, "pointer", none, "list", []string(nil), "empty", "", "zero", 0, "no", false,
	}
	for _, asText := range []bool{true, false} {
		var out bytes.Buffer
		slog.New(newLogHandler(&out, asText, slog.LevelInfo)).With("from", "x\ny").Info("a message\nof two lines", attrs...)
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

// Lines that are alike, about one host, are ten a minute; the next one tells how
// many were left out. Those about another host are counted apart, up to a bound.
func TestLogIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(newLogHandler(&out, false, slog.LevelDebug))
		lines := func(want int, what string) string {
			t.Helper()
			got := out.String()
			if n := strings.Count(got, "\n"); n != want {
				t.Errorf("%s: %d lines, want %d", what, n, want)
			}
			out.Reset()
			return got
		}
		flood := func(log *slog.Logger, args ...any) {
			for i := range 1000 {
				log.Warn("again", append(args, "i", i)...)
			}
		}
		flood(log)
		lines(maxAlike, "of one message")
		flood(log, "node", "a")
		lines(maxAlike, "of one message about a host")
		flood(log.With("from", "b"))
		lines(maxAlike, "of one message about another")
		for range 1000 {
			log.Debug("again")
		}
		lines(1000, "at debug level")
		time.Sleep(alikeFor)
		log.Warn("again", "node", "a")
		if got := lines(1, "a minute later"); !strings.Contains(got, `"left_out":990`) {
			t.Errorf("got %s", got)
		}
		for i := range 100_000 {
			log.Warn("again", "node", fmt.Sprint("made up ", i))
		}
		if n := strings.Count(out.String(), "\n"); n > maxMatters+maxAlike {
			t.Errorf("%d lines about hosts that are made up", n)
		}
	})
}

// logged are the lines of a sidecar's log from a level on, since a moment.
func (p *process) logged(level string, since time.Time) (list []map[string]any) {
	p.t.Helper()
	for line := range strings.Lines(p.log.String()) {
		var l map[string]any
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			p.t.Errorf("%v: %s", err, line)
			continue
		}
		for key, v := range l {
			if s, _ := v.(string); v == nil || strings.ContainsAny(s, "\n\r") {
				p.t.Errorf("%s is %q: %s", key, v, line)
			}
		}
		at, _ := time.Parse(time.RFC3339Nano, l["time"].(string))
		if at.After(since) && (l["level"] == level || level == "") {
			list = append(list, l)
		}
	}
	return list
}

// only returns the one line that is wanted, and waits for it.
func (p *process) only(level, msg string, since time.Time) map[string]any {
	p.t.Helper()
	eventually(p.t, patience, msg, func() error {
		for _, l := range p.logged(level, since) {
			if strings.Contains(l["msg"].(string), msg) {
				return nil
			}
		}
		return fmt.Errorf("the log is\n%s", p.log)
	})
	list := p.logged(level, since)
	if len(list) != 1 {
		p.t.Fatalf("%d lines, want one that says %q:\n%v", len(list), msg, list)
	}
	return list[0]
}

// What has happened to a host is one line on each other host, which names the cause:
// one that was killed, one that stood still, one that has left.
func TestLogNamesTheCause(t *testing.T) {
	slow(t, 30*time.Second)
	t.Parallel()
	list := runCluster(t, "a", "b", "c")
	a, b, c := list[0], list[1], list[2]
	owned := float64(a.member("c").Partitions)
	for _, p := range list {
		if warnings := p.logged("WARN", time.Time{}); len(warnings) > 1 || len(warnings) == 1 && !strings.HasPrefix(warnings[0]["msg"].(string), "nobody answers") {
			t.Errorf("at the start: %v", warnings)
		}
	}

	begun := time.Now()
	c.signal(syscall.SIGKILL)
	for _, p := range []*process{a, b} {
		l := p.only("WARN", "a host counts as dead", begun)
		heirs, _ := l["taken_over_by"].(string)
		if l["node"] != "c" || l["owned_partitions"] != owned || !strings.Contains(heirs, "a (") || !strings.Contains(heirs, "b (") {
			t.Errorf("after the kill of c, which owned %v: %v", owned, l)
		}
	}
	whole(t, a, b)
	for _, p := range []*process{a, b} {
		if l := p.logged("INFO", begun); len(l) > 0 {
			t.Errorf("after the kill of c: %v", l)
		}
	}

	begun = time.Now()
	proctest.Stop(t, b.cmd.Process)
	a.only("WARN", "a host counts as dead", begun)
	time.Sleep(time.Until(begun.Add(5 * time.Second)))
	b.signal(syscall.SIGCONT)
	b.only("WARN", "did not run for", begun)
	whole(t, a, b)
	b.only("WARN", "did not run for", begun)
	b.only("INFO", "this host is in", begun)

	begun = time.Now()
	b.terminate()
	if l := a.only("INFO", "a host has left", begun); l["node"] != "b" {
		t.Errorf("%v", l)
	}
	lines := b.logged("", begun)
	if len(lines) != 2 || !strings.HasPrefix(lines[0]["msg"].(string), "this host has left") || lines[0]["partitions"] == 0.0 || lines[1]["msg"] != "stopped" {
		t.Errorf("of the one that leaves: %v", lines)
	}
	whole(t, a)
	if l := a.logged("", begun); len(l) != 1 {
		t.Errorf("of the one that stays: %v", l)
	}
}
