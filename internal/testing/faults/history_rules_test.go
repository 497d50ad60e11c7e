package faults

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestBroken: requests come to package history as they are, and so do the excuses.
func TestBroken(t *testing.T) {
	const s = time.Second
	w := func(o op) op { o.kind, o.end, o.allowed = set, o.start+1, s; return o }
	r := func(o op) op { o.kind, o.end, o.allowed = get, o.start+1, s; return o }
	first, second := w(op{seq: 1, start: 1}), w(op{seq: 2, start: s})
	for _, tt := range []struct {
		name    string
		history []op
		want    string // how the lines begin; empty: none
	}{
		{"right", []op{first, second, r(op{seq: 2, start: 5 * s, node: 1})}, ""},
		{"the bound", []op{first, second, r(op{seq: 1, start: 4 * s, node: 1})}, "the bound"},
		{"one's own", []op{first, second, r(op{seq: 1, start: 2 * s})}, "read your writes"},
		{"another node's", []op{first, second, r(op{seq: 1, start: 2 * s, node: 1})}, ""},
		{"another life's", []op{first, second, r(op{seq: 1, start: 2 * s, life: 1})}, ""},
		{"an unknown life's", []op{first, w(op{seq: 2, start: s, life: -1}), r(op{seq: 1, start: 2 * s, life: -1})}, ""},
		{"another key's", []op{first, r(op{seq: 1, start: 2 * s, key: 1})}, "a value that no app has written"},
		{"flushed", []op{first, {kind: flush, start: s, end: s + 1}, r(op{seq: 1, start: 2 * s})}, "read your writes"},
		{"expired", []op{w(op{seq: 1, start: 1, ttl: s}), r(op{seq: 1, start: 2 * s})}, "expired"},
		{"split", []op{first, second, r(op{seq: 1, start: 50 * s, node: 1})}, ""},
		{"late", []op{{kind: get, start: 1, end: 2*s + slack, allowed: s, out: degraded}}, "answered late"},
		{"late in a stall", []op{{kind: get, start: 29 * s, end: 31*s + slack, allowed: s, out: degraded}}, ""},
		{"late of one that has gone", []op{{kind: get, start: 1, end: 2*s + slack, allowed: s, out: silent, gone: true}}, ""},
		{"failed", []op{{kind: get, start: 1, end: 2, allowed: s, out: failed}}, "a read that fails"},
		{"failed in an outage", []op{{kind: get, start: 40 * s, end: 41 * s, allowed: s, out: failed}}, ""},
	} {
		l := &load{history: tt.history, stalls: []stall{{30 * s, 31 * s}}, outages: []stall{{40 * s, 42 * s}}}
		got := l.broken(2*s, &stall{50 * s, 51 * s})
		if (len(got) > 0) != (tt.want != "") || slices.ContainsFunc(got, func(line string) bool { return !strings.HasPrefix(line, tt.want) }) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
