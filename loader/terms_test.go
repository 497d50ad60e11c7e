package loader

import (
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
)

// TestTerms checks that a term ends with its age, and that a server which is not the one ends all terms
// that began no later, once.
func TestTerms(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var terms Terms
		first, second := terms.Begin(), terms.Begin()
		terms.End(first)
		third := terms.Begin()
		terms.End(second) // the answer of a call that was under way
		if !terms.Over(first) || !terms.Over(second) || terms.Over(third) {
			t.Error(terms.Over(first), terms.Over(second), terms.Over(third))
		}
		if terms.End(third) || terms.Over(third) {
			t.Error("all connections end again within a second")
		}
		if time.Sleep(MaxConnAge * 9 / 10); terms.Over(third) && terms.Over(terms.Begin()) {
			t.Error("a term is over before its time")
		}
		if time.Sleep(MaxConnAge / 10); !terms.Over(third) {
			t.Error("a connection is used for longer than MaxConnAge")
		}
		ends := map[time.Time]bool{}
		for range 10 {
			ends[terms.Begin().until] = true
		}
		if len(ends) < 2 {
			t.Error("connections that were made at once end at once")
		}
		if last := terms.Begin(); !terms.End(last) || !terms.Over(last) {
			t.Error("connections do not end a minute after the last ones")
		}
	})
}
