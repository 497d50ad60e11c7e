package faults

import (
	"testing"
	"time"
)

// TestSoakNeeds checks which values a soak accepts of a key: none that was ended more than
// the bound ago, or by the same process.
func TestSoakNeeds(t *testing.T) {
	const s = time.Second
	for _, tc := range []struct {
		name        string
		start       time.Duration
		node, downs int
		want        int
	}{
		{"before the first", s / 2, 1, 0, 0},
		{"within the bound of the first", 3 * s, 2, 0, 0},
		{"after the bound of the first", 3*s + 1, 2, 0, 1},
		{"after the bound of the second", 4*s + 1, 2, 0, 2},
		{"the process that took the first", s, 0, 0, 1},
		{"the process that took the second", 2 * s, 1, 0, 2},
		{"before the second was acknowledged", 2*s - 1, 1, 0, 0},
		{"the next process of that node", 2 * s, 1, 1, 0},
	} {
		k := &soakKey{key: firstStored}
		k.acknowledge(&op{seq: 1, end: s, node: 0})
		k.acknowledge(&op{seq: 2, end: 2 * s, node: 1})
		if got := k.need(&op{start: tc.start, node: tc.node, downs: tc.downs}, 2*s); got != tc.want {
			t.Errorf("%s: number %d is needed, want %d", tc.name, got, tc.want)
		}
	}
	k := &soakKey{key: firstStored, begun: 7}
	k.abandon(&op{out: unavailable})
	if _, same := k.last(firstStored); !same {
		t.Error("a refused write changes the key")
	}
	k.abandon(&op{out: unknown})
	if seq, same := k.last(firstStored); same || seq != 0 {
		t.Error("a write of unknown outcome leaves the key")
	}
}

// TestSoakFailures checks which failed requests are errors of apps.
func TestSoakFailures(t *testing.T) {
	const s = time.Second
	page, stored := firstPage, firstStored
	for _, tc := range []struct {
		name string
		op   op
		bad  bool
	}{
		{"a read that timed out", op{kind: get, key: stored, out: silent, end: s}, true},
		{"a write that was refused", op{kind: set, key: stored, out: unavailable, end: s}, true},
		{"BUSY", op{kind: set, key: stored, out: busy, end: s}, true},
		{"an odd answer", op{kind: get, key: stored, out: odd, end: s}, true},
		{"a page before the outage", op{kind: get, key: page, out: failed, start: 8 * s, end: 9 * s}, true},
		{"a page in the outage", op{kind: get, key: page, out: failed, start: 11 * s, end: 11 * s}, false},
		{"BUSY of a page in the outage", op{kind: get, key: page, out: busy, start: 11 * s, end: 11 * s}, false},
		{"a page that timed out in the outage", op{kind: get, key: page, out: silent, start: 11 * s, end: 12 * s}, true},
		{"a stored key in the outage", op{kind: get, key: stored, out: failed, start: 11 * s, end: 11 * s}, true},
		{"a deletion of a page in the outage", op{kind: del, key: page, out: failed, start: 11 * s, end: 11 * s}, true},
		{"a page beside the load that closes the breaker", op{kind: get, key: page, out: busy, start: 14 * s, end: 14 * s,
			note: "the origin is busy: its breaker lets 1 calls try"}, false},
		{"BUSY of a page after the outage", op{kind: get, key: page, out: busy, start: 14 * s, end: 14 * s}, true},
		{"a page after the outage", op{kind: get, key: page, out: failed, start: 14 * s, end: 14 * s}, true},
		{"a stall", op{kind: get, key: stored, out: silent, start: 29 * s, end: 31 * s}, false},
		{"long after a stall", op{kind: get, key: stored, out: silent, start: 37 * s, end: 38 * s}, true},
	} {
		l := &soakLoad{load: &load{stalls: []stall{{30 * s, 31 * s}}, outages: []stall{{10 * s, 13 * s}}}, failed: []op{tc.op}}
		if bad, _, _ := l.failures(); len(bad) > 0 != tc.bad {
			t.Errorf("%s: an error of an app: %v, want %v", tc.name, len(bad) > 0, tc.bad)
		}
	}
}
