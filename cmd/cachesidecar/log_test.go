package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/proctest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// logged returns the lines of a sidecar's log with the given level, or all if level is
// "", after a moment.
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

// only waits for a line, and returns it. It must be the only one.
func (p *process) only(level, msg string, since time.Time) map[string]any {
	p.t.Helper()
	return p.onlyBut(func(map[string]any) bool { return false }, level, msg, since)
}

// onlyBut is only, beside lines that is says may be there.
func (p *process) onlyBut(is func(map[string]any) bool, level, msg string, since time.Time) map[string]any {
	p.t.Helper()
	testenv.Succeeds(p.t, msg, func() error {
		for _, l := range p.logged(level, since) {
			if strings.Contains(l["msg"].(string), msg) {
				return nil
			}
		}
		return fmt.Errorf("the log is\n%s", p.log)
	})
	list := slices.DeleteFunc(p.logged(level, since), is)
	if len(list) != 1 {
		p.t.Fatalf("%d lines, want one that says %q:\n%v", len(list), msg, list)
	}
	return list[0]
}

// TestLengthyLogNamesTheCause checks that each other host logs one line about what happened to a
// host, with the cause: it was killed, it stood still, or it left.
func TestLengthyLogNamesTheCause(t *testing.T) {
	testenv.Takes(t, 15*time.Second)
	testenv.ReadsClock(t, 5*time.Second, "a host that stands still for so long says so")
	t.Parallel()
	list := runCluster(t, "a", "b", "c", "d")
	a, b, c, d := list[0], list[1], list[2], list[3] // d is there so that no host is ever alone
	owned := float64(a.member("c").Partitions)
	for _, p := range list {
		if warnings := p.logged("WARN", time.Time{}); len(warnings) > 1 || len(warnings) == 1 && !strings.HasPrefix(warnings[0]["msg"].(string), "no host answers") {
			t.Errorf("at the start: %v", warnings)
		}
	}

	begun := testenv.Date()
	c.signal(syscall.SIGKILL)
	for _, p := range []*process{a, b, d} {
		l := p.only("WARN", "a host counts as dead", begun)
		heirs, _ := l["taken_over_by"].(string)
		if l["node"] != "c" || l["owned_partitions"] != owned || !strings.Contains(heirs, "a (") || !strings.Contains(heirs, "b (") {
			t.Errorf("after the kill of c, which owned %v: %v", owned, l)
		}
	}
	whole(t, a, b, d)
	for _, p := range []*process{a, b, d} {
		if l := p.logged("INFO", begun); len(l) > 0 {
			t.Errorf("after the kill of c: %v", l)
		}
	}

	begun = testenv.Date()
	proctest.Stop(t, b.cmd.Process)
	a.only("WARN", "a host counts as dead", begun)
	time.Sleep(5 * time.Second)
	b.signal(syscall.SIGCONT)
	b.only("WARN", "did not run for", begun)
	whole(t, a, b, d)
	b.only("WARN", "did not run for", begun)
	b.only("INFO", "this host is in", begun)

	begun = testenv.Date()
	b.terminate()
	// Another host may tell of the ring without b before the goodbye of b comes.
	without := func(l map[string]any) bool {
		return l["msg"] == "the ring has changed" && l["went"] == "b" && l["came"] == nil
	}
	if l := a.onlyBut(without, "INFO", "a host has left", begun); l["node"] != "b" {
		t.Errorf("%v", l)
	}
	steps := []string{"stopping", "draining", "handed over", "this host has left", "stopped"}
	lines := b.logged("", begun)
	for i, l := range lines {
		if len(lines) != len(steps) || !strings.HasPrefix(l["msg"].(string), steps[i]) || l["partitions"] == 0.0 {
			t.Errorf("of the one that leaves, line %d: %v, want %q", i, l, steps)
		}
	}
	whole(t, a, d)
	if l := slices.DeleteFunc(a.logged("", begun), without); len(l) != 1 {
		t.Errorf("of the one that stays: %v", l)
	}
}
