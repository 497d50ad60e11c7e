package verify

import (
	"strings"
	"testing"
	"time"
)

// TestHistory: which reads VERIFY judges to be violations, and of what.
func TestHistory(t *testing.T) {
	const s = time.Second
	for _, tc := range []struct {
		name  string
		acks  []time.Duration // of the writes, in their order; zero is unknown
		seen  int             // by an earlier fresh read
		sent  time.Duration
		own   bool
		fresh bool
		got   int
		want  string // how the violation begins; "" is none
		stale time.Duration
	}{
		{name: "the latest", acks: []time.Duration{1 * s, 2 * s}, sent: 9 * s, got: 2},
		{name: "a copy within the bound", acks: []time.Duration{1 * s, 2 * s}, sent: 4 * s, got: 1, stale: 2 * s},
		{name: "a copy beyond it", acks: []time.Duration{1 * s, 2 * s}, sent: 4*s + 1, got: 1, want: "the bound", stale: 2*s + 1},
		{name: "two writes back", acks: []time.Duration{1 * s, 2 * s, 5 * s}, sent: 5 * s, got: 1, want: "the bound", stale: 3 * s},
		{name: "the next one is unknown", acks: []time.Duration{1 * s, 0}, sent: 9 * s, got: 1},
		{name: "the one after that is not", acks: []time.Duration{1 * s, 0, 3 * s}, sent: 9 * s, got: 1, want: "the bound", stale: 6 * s},
		{name: "an unknown one may come late", acks: []time.Duration{1 * s, 0, 3 * s}, sent: 9 * s, got: 2},
		{name: "one not acknowledged yet", acks: []time.Duration{1 * s, 0}, sent: 2 * s, got: 2},
		{name: "what nobody wrote", acks: []time.Duration{1 * s}, sent: 2 * s, got: 7, want: "n read 7"},
		{name: "not one's own write", acks: []time.Duration{1 * s, 2 * s}, sent: 2 * s, own: true, got: 1, want: "read your writes"},
		{name: "one's own write", acks: []time.Duration{1 * s, 2 * s}, sent: 2 * s, own: true, got: 2},
		{name: "fresh, and not the latest", acks: []time.Duration{1 * s, 2 * s}, sent: 2 * s, fresh: true, got: 1, want: "fresh"},
		{name: "fresh", acks: []time.Duration{1 * s, 2 * s}, sent: 2 * s, fresh: true, got: 2},
		{name: "fresh, and back", acks: []time.Duration{1 * s, 0}, seen: 2, sent: 2 * s, fresh: true, got: 1, want: "fresh"},
		{name: "not fresh, and back", acks: []time.Duration{1 * s, 0}, seen: 2, sent: 2 * s, got: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := &history{bound: 2 * s}
			k := &historyKey{name: []byte("k"), fresh: tc.seen}
			for _, at := range tc.acks {
				if n := h.writes(k); at != 0 {
					h.acknowledged(k, n, at)
				}
			}
			stale := h.judgeLocked(h.reads(k, "n", tc.sent, tc.own, tc.fresh), tc.got)
			if got := strings.Join(h.violations, "; "); (got == "") != (tc.want == "") || !strings.HasPrefix(got, tc.want) || h.broken > 1 {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if stale != tc.stale {
				t.Errorf("it is %v stale, want %v", stale, tc.stale)
			}
		})
	}
}
