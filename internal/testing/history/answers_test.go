package history

import (
	"testing"
	"time"
)

// TestAnswers: which answers are wrong, whatever value they have.
func TestAnswers(t *testing.T) {
	get := func(out Outcome, began, ended time.Duration) Op {
		return within(as(read("a", 1, began, ended), out), 1000)
	}
	gone := func(o Op) Op { o.Gone = true; return o }
	r := Rules{Excuses: []Excuse{{Outage, 20 * s, 30 * s}, {Stall, 40 * s, 41 * s}, {Split, 0, 99 * s}}}
	judged(t, []row{
		{"in time", []Op{get(Done, 0, 1), get(Absent, 0, 1), get(Degraded, 0, 1), get(Silent, 0, 1), get(Old, 0, 1)}, ""},
		{"without a time", []Op{set("a", 1, 0, 9999)}, ""},
		{"slow", []Op{within(set("a", 1, 0, 1099), 1000)}, ""},
		{"just in time", []Op{within(set("a", 1, 0, 1100), 1000)}, ""},
		{"too slow", []Op{within(set("a", 1, 0, 1101), 1000)}, Tardy},
		{"a miss too slow", []Op{get(Degraded, 0, 1101)}, Tardy},
		{"no answer of who has gone", []Op{gone(get(Silent, 0, 9000))}, ""},
		{"a read refused", []Op{get(Unavailable, 0, 0)}, Fails},
		{"a write refused", []Op{within(as(set("a", 1, 0, 1), Unavailable), 1000)}, ""},
		{"a read timed out", []Op{get(Unknown, 0, 0)}, Fails},
		{"a read of who has gone", []Op{gone(get(Unavailable, 0, 0))}, ""},
		{"a read that the origin fails", []Op{get(Failed, 19000, 19000)}, Fails},
		{"while it is down", []Op{get(Failed, 21000, 21000), get(Busy, 21000, 21000)}, ""},
		{"no answer while it is down", []Op{get(Unknown, 21000, 21000)}, Fails},
		{"late while it is down", []Op{get(Failed, 21000, 23000)}, Tardy},
		{"timed out while the machine stood still", []Op{get(Unknown, 39000, 41000)}, ""},
		{"its load failed while the machine stood still", []Op{get(Failed, 39000, 41000)}, ""},
		{"and after that", []Op{get(Failed, 41000, 41000)}, Fails},
		{"timed out after that", []Op{get(Unknown, 41000, 42000)}, Fails},
		{"refused while the machine stood still", []Op{get(Unavailable, 39000, 41000)}, Fails},
		{"late by as long as it stood still", []Op{get(Done, 39000, 41000)}, ""},
		{"odd", []Op{as(get(Done, 0, 1), Odd)}, Strange},
		{"odd of who has gone", []Op{gone(as(get(Done, 0, 1), Odd))}, Strange},
	}, func(ops []Op) []Verdict { return r.Answers(ops, 100*unit) })
}
