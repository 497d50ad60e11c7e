package top

import (
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/telemetry"
)

func TestTopOrders(t *testing.T) {
	list := func() []activity {
		return []activity{
			{name: "a", Rates: telemetry.Rates{Reads: 5, Writes: 1, Hits: 1, Loads: 2, Errors: 0}, lag: 3, used: 1},
			{name: "b", Rates: telemetry.Rates{Reads: 9, Writes: 0, Hits: 0.9, Loads: 0, Errors: 0}, lag: 1, used: 3},
			{name: "c", Rates: telemetry.Rates{Reads: -1, Writes: -1, Hits: -1, Loads: -1, Errors: 4}, lag: 0, used: 2},
			{name: "d", silent: "no answer", trouble: true},
		}
	}
	for key, want := range map[byte]string{'r': "dbac", 'w': "dabc", 'h': "dbac", 'l': "dabc", 'e': "dcab", 'g': "dabc", 'm': "dbca", 'n': "dabc", 'x': "dbac"} {
		v := &view{by: &orders[0]}
		v.pressKey(key)
		lines, got := list(), ""
		v.by.sort(lines)
		for _, a := range lines {
			got += a.name
		}
		if got != want {
			t.Errorf("%c: %s, want %s", key, got, want)
		}
	}
}
