package faults

import (
	"testing"
	"time"
)

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
