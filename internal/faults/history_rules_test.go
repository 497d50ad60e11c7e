package faults

import (
	"strings"
	"testing"
	"time"
)

// TestRules checks that each rule finds its violations, and nothing else.
func TestRules(t *testing.T) {
	const s = time.Second
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	w := func(seq, node int, start, end time.Duration, out outcome) op {
		return op{kind: set, key: 1, seq: seq, node: node, start: start, end: end, allowed: s, out: out}
	}
	d := func(seq, node int, start, end time.Duration, out outcome) op {
		o := w(seq, node, start, end, out)
		o.kind = del
		return o
	}
	r := func(seq, node int, start, end time.Duration) op {
		return op{kind: get, key: 1, seq: seq, node: node, start: start, end: end, allowed: s}
	}
	f := func(node int, start, end time.Duration, out outcome) op {
		return op{kind: flush, node: node, start: start, end: end, allowed: s, out: out}
	}
	short := w(1, 0, 0, ms(1), done)
	short.ttl = s
	inLife := func(o op, life int) op { o.life = life; return o }
	first := w(1, 0, 0, ms(1), done)
	in := func(from, to time.Duration) func(time.Duration) bool {
		return func(at time.Duration) bool { return at >= from && at < to }
	}
	tests := []struct {
		name    string
		split   func(time.Duration) bool
		history []op
		want    string // the beginning of the finding; empty: no violation
	}{
		{"nothing", nil, nil, ""},
		{"in order", nil, []op{first, r(1, 0, ms(2), ms(3)), w(2, 1, ms(4), ms(5), done), r(2, 1, ms(6), ms(7))}, ""},
		{"of nobody", nil, []op{first, r(7, 0, ms(2), ms(3))}, "a value that nobody wrote"},
		{"of a delete", nil, []op{first, d(2, 0, ms(2), ms(3), done), r(2, 0, ms(4), ms(5))}, "a value that nobody wrote"},
		{"of another key", nil, []op{first, {kind: get, key: 2, seq: 1, start: ms(2), end: ms(3), allowed: s}}, "a value that nobody wrote"},
		{"of a write under way", nil, []op{w(1, 0, 0, ms(9), done), r(1, 1, ms(2), ms(3))}, ""},
		{"of the future", nil, []op{w(1, 0, ms(4), ms(5), done), r(1, 0, ms(2), ms(3))}, "a value before it was written"},
		{"of a refused write", nil, []op{w(1, 0, 0, ms(1), unavailable), r(1, 0, ms(2), ms(3))}, "the value of a write that was refused"},
		{"of a busy one", nil, []op{w(1, 0, 0, ms(1), busy), r(1, 0, ms(2), ms(3))}, "the value of a write that was refused"},
		{"of one that timed out", nil, []op{w(1, 0, 0, ms(1), unknown), r(1, 0, ms(2), ms(3))}, ""},
		{"F1", nil, []op{first, w(2, 0, ms(2), ms(3), done), r(1, 0, ms(3), ms(4))}, "F1"},
		{"F1, read under way", nil, []op{first, w(2, 0, ms(2), ms(4), done), r(1, 0, ms(3), ms(5))}, ""},
		{"F1, deleted", nil, []op{first, d(2, 0, ms(2), ms(3), done), r(1, 0, ms(4), ms(5))}, "F1"},
		{"F1, deleted what was not there", nil, []op{first, d(2, 0, ms(2), ms(3), absent), r(1, 0, ms(4), ms(5))}, "F1"},
		{"F1 also in a split", in(0, s), []op{first, w(2, 0, ms(2), ms(3), done), r(1, 0, ms(4), ms(5))}, "F1"},
		{"F1, the next process", nil, []op{first, w(2, 0, ms(2), ms(3), done), inLife(r(1, 0, ms(4), ms(5)), 1)}, ""},
		{"F2 bound", nil, []op{first, w(2, 0, ms(2), ms(3), done), r(1, 1, ms(500), ms(501))}, ""},
		{"F2", nil, []op{first, w(2, 0, ms(2), ms(3), done), r(1, 1, 2*s+ms(4), 2*s+ms(5))}, "F2"},
		{"F2, the next process", nil, []op{first, w(2, 0, ms(2), ms(3), done), inLife(r(1, 0, 3*s, 3*s+1), 1)}, "F2"},
		{"F2, resurrected", nil, []op{first, d(2, 0, ms(2), ms(3), done), r(1, 1, 3*s, 3*s+1)}, "F2"},
		{"F2, two behind", nil, []op{first, w(2, 0, ms(2), ms(3), done), w(3, 0, 3*s, 3*s+1, done), r(1, 1, 3*s+2, 3*s+3)}, "F2"},
		{"F2, ended by what timed out", nil, []op{first, w(2, 0, ms(2), ms(3), unknown), r(1, 1, 9*s, 9*s+1)}, ""},
		{"F2, ended by what was refused", nil, []op{first, w(2, 0, ms(2), ms(3), unavailable), r(1, 1, 9*s, 9*s+1)}, ""},
		{"what timed out comes late", nil, []op{first, w(2, 0, ms(2), ms(3), unknown), w(3, 0, ms(4), ms(5), done), r(2, 0, 9*s, 9*s+1)}, ""},
		{"and comes back", nil, []op{w(2, 0, ms(2), ms(3), unknown), r(2, 1, ms(4), ms(5)), w(3, 0, ms(6), ms(7), done), r(2, 0, ms(8), ms(9))}, "F1"},
		{"in a split", in(2*s, 9*s), []op{first, w(2, 0, ms(2), ms(3), done), r(1, 1, 8*s, 8*s+1)}, ""},
		{"after a split", in(2*s, 9*s), []op{first, w(2, 0, ms(2), ms(3), done), r(1, 1, 9*s, 9*s+1)}, "F2"},
		{"flushed, within the bound", nil, []op{first, f(0, ms(2), ms(3), done), r(1, 1, ms(500), ms(501))}, ""},
		{"flushed", nil, []op{first, f(0, ms(2), ms(3), done), r(1, 1, 2*s+ms(4), 2*s+ms(5))}, "F2"},
		{"flushed through the same process", nil, []op{first, f(0, ms(2), ms(3), done), r(1, 0, ms(4), ms(5))}, "F1"},
		{"perhaps flushed", nil, []op{first, f(0, ms(2), ms(3), unknown), r(1, 0, 9*s, 9*s)}, ""},
		{"written while it was flushed", nil, []op{f(0, 0, ms(3), done), w(1, 0, ms(1), ms(2), done), r(1, 0, 9*s, 9*s)}, ""},
		{"until it ends", nil, []op{short, r(1, 1, s+ms(1), s+ms(2))}, ""},
		{"after it has ended", nil, []op{short, r(1, 1, s+ms(3), s+ms(4))}, "expired"},
		{"slow", nil, []op{w(1, 0, 0, s+ms(99), done)}, ""},
		{"too slow", nil, []op{w(1, 0, 0, s+ms(101), done)}, "answered"},
		{"a miss too slow", nil, []op{{kind: get, out: degraded, end: s + ms(101), allowed: s}}, "answered"},
		{"no answer of who has gone", nil, []op{{kind: get, out: silent, end: 9 * s, allowed: s, gone: true}}, ""},
		{"a read refused", nil, []op{{kind: get, out: unavailable}}, "a read that fails"},
		{"a read timed out", nil, []op{{kind: get, out: unknown}}, "a read that fails"},
		{"a read of who has gone", nil, []op{{kind: get, out: unavailable, gone: true}}, ""},
		{"a read that the origin fails", nil, []op{{kind: get, out: failed, end: 19 * s, start: 19 * s}}, "a read that fails"},
		{"while it is down", nil, []op{{kind: get, out: failed, end: 21 * s, start: 21 * s}, {kind: get, out: busy, end: 21 * s, start: 21 * s}}, ""},
		{"no answer while it is down", nil, []op{{kind: get, out: unknown, end: 21 * s, start: 21 * s}}, "a read that fails"},
		{"late while it is down", nil, []op{{kind: get, out: failed, start: 21 * s, end: 23 * s, allowed: s}}, "answered"},
		{"timed out while the machine stood still", nil, []op{{kind: get, out: unknown, start: 39 * s, end: 41 * s, allowed: s}}, ""},
		{"its load failed while the machine stood still", nil, []op{{kind: get, out: failed, start: 39 * s, end: 41 * s, allowed: s}}, ""},
		{"and after that", nil, []op{{kind: get, out: failed, start: 41 * s, end: 41 * s, allowed: s}}, "a read that fails"},
		{"timed out after that", nil, []op{{kind: get, out: unknown, start: 41 * s, end: 42 * s, allowed: s}}, "a read that fails"},
		{"refused while the machine stood still", nil, []op{{kind: get, out: unavailable, start: 39 * s, end: 41 * s, allowed: s}}, "a read that fails"},
		{"late by as long as it stood still", nil, []op{{kind: get, out: done, key: 1, seq: 1, start: 39 * s, end: 41 * s, allowed: s}, w(1, 0, 0, ms(1), done)}, ""},
		{"a stale value", nil, []op{first, w(2, 0, ms(2), ms(3), done), {kind: get, key: 1, seq: 1, out: old, start: 9 * s, end: 9 * s}}, ""},
		{"odd", nil, []op{{kind: get, out: odd, note: "internal error"}}, "an odd answer"},
		{"refusals", nil, []op{w(1, 0, 0, 1, unavailable), w(2, 0, 2, 3, busy), w(3, 0, 4, 5, unknown), {kind: get, key: 1, out: degraded}}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			stalled := func(from, to time.Duration) time.Duration { return max(0, min(to, 41*s)-max(from, 40*s)) }
			got := rules{bound: 2 * s, slack: ms(100), split: tt.split, outage: in(20*s, 30*s), stalled: stalled}.broken(tt.history)
			switch {
			case tt.want == "" && len(got) > 0:
				t.Errorf("got %q, want no fault", got)
			case tt.want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], tt.want)):
				t.Errorf("got %q, want one of %q", got, tt.want)
			}
		})
	}
}

// TestRulesFindOneInMany checks that one wrong read among many correct ones is found, and
// that many equal violations are summed up.
func TestRulesFindOneInMany(t *testing.T) {
	const keys, rounds = 100, 50
	var history []op
	at := time.Duration(0)
	tick := func() time.Duration { at += time.Millisecond; return at }
	for round := range rounds {
		for key := range keys {
			history = append(history, op{kind: set, key: key, seq: round, node: key % 3, start: tick(), end: tick()})
			for node := range 3 {
				history = append(history, op{kind: get, key: key, seq: round, node: node, start: tick(), end: tick()})
			}
		}
	}
	r := rules{bound: time.Second, slack: time.Second}
	if got := r.broken(history); len(got) > 0 {
		t.Fatalf("got %q, want no fault", got)
	}
	wrong := &history[len(history)/2+1]
	if wrong.kind != get {
		t.Fatal("the test changes a write")
	}
	wrong.seq -= 10
	if got := r.broken(history); len(got) != 1 || !strings.HasPrefix(got[0], "F") {
		t.Errorf("got %q, want one fault", got)
	}
	for i := range history {
		history[i].out = odd
	}
	if got := r.broken(history); len(got) != 6 || !strings.Contains(got[5], "more") {
		t.Errorf("got %d lines, want 5 and how many more", len(got))
	}
}
