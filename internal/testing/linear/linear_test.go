package linear

import (
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/history"
)

func op(kind history.Kind, number int64, began, ended time.Duration) history.Op {
	return history.Op{Kind: kind, Key: "k", Number: number, Began: began, Ended: ended}
}

func as(o history.Op, out history.Outcome) history.Op { o.Outcome = out; return o }

// TestBroken: which histories of one key are linearizable, without losses and with them.
func TestBroken(t *testing.T) {
	set := func(n int64, began, ended time.Duration) history.Op { return op(history.Set, n, began, ended) }
	del := func(began, ended time.Duration) history.Op { return op(history.Delete, 0, began, ended) }
	incr := func(n int64, began, ended time.Duration) history.Op { return op(history.Incr, n, began, ended) }
	copied := func(n int64, began, ended time.Duration) history.Op { return op(history.Read, n, began, ended) }
	read := func(n int64, began, ended time.Duration) history.Op {
		o := op(history.Read, n, began, ended)
		if o.Fresh = true; n == 0 {
			o.Outcome = history.Absent
		}
		return o
	}
	const right, wrong, rightIfLost = 0, 1, 2
	for _, tt := range []struct {
		name string
		ops  []history.Op
		want int
	}{
		{"nothing", nil, right},
		{"in order", []history.Op{set(1, 0, 1), read(1, 2, 3), set(2, 4, 5), read(2, 6, 7), del(8, 9), read(0, 10, 11)}, right},
		{"the one before", []history.Op{set(1, 0, 1), set(2, 2, 3), read(1, 4, 5)}, wrong},
		{"the one before, not fresh", []history.Op{set(1, 0, 1), set(2, 2, 3), copied(1, 4, 5)}, right},
		{"either while it is written", []history.Op{set(1, 0, 1), set(2, 2, 9), read(1, 3, 4), read(2, 5, 6)}, right},
		{"and back", []history.Op{set(1, 0, 1), set(2, 2, 9), read(2, 3, 4), read(1, 5, 6)}, wrong},
		{"a miss", []history.Op{set(1, 0, 1), read(0, 2, 3)}, rightIfLost},
		{"what was deleted", []history.Op{set(1, 0, 1), del(2, 3), read(1, 4, 5)}, wrong},
		{"what was flushed", []history.Op{set(1, 0, 1), {Kind: history.Flush, Began: 2, Ended: 3}, read(1, 4, 5)}, wrong},
		{"what was refused", []history.Op{set(1, 0, 1), as(set(2, 2, 3), history.Busy), read(2, 4, 5)}, wrong},
		{"of unknown outcome", []history.Op{set(1, 0, 1), as(set(2, 2, 3), history.Unknown), read(1, 4, 5), read(2, 6, 7)}, right},
		{"of unknown outcome, and back", []history.Op{set(1, 0, 1), as(set(2, 2, 3), history.Unknown), read(2, 4, 5), read(1, 6, 7)}, wrong},
		{"perhaps deleted", []history.Op{set(1, 0, 1), as(del(2, 3), history.Unknown), read(0, 4, 5)}, right},
		{"perhaps deleted, and back", []history.Op{set(1, 0, 1), as(del(2, 3), history.Unknown), read(0, 4, 5), read(1, 6, 7)}, rightIfLost},
		{"another key", []history.Op{{Kind: history.Set, Key: "other", Number: 1, Ended: 1}, set(2, 0, 1), read(2, 2, 3)}, right},

		{"counted", []history.Op{incr(1, 0, 1), incr(2, 2, 3), read(2, 4, 5), incr(3, 6, 7)}, right},
		{"counted at once", []history.Op{incr(2, 0, 9), incr(1, 0, 9), incr(3, 0, 9)}, right},
		{"counted to one number", []history.Op{incr(1, 0, 1), incr(2, 2, 3), incr(2, 4, 5)}, rightIfLost},
		{"counted afresh", []history.Op{incr(1, 0, 1), incr(2, 2, 3), incr(1, 4, 5)}, rightIfLost},
		{"counted by two", []history.Op{incr(1, 0, 1), incr(3, 2, 3)}, rightIfLost},
		{"counted by two, perhaps", []history.Op{incr(1, 0, 1), as(incr(0, 1, 1), history.Unknown), incr(3, 2, 3)}, right},
		{"counted, and deleted", []history.Op{incr(1, 0, 1), incr(2, 2, 3), del(4, 5), incr(1, 6, 7)}, right},
		{"counted, and deleted in vain", []history.Op{incr(1, 0, 1), incr(2, 2, 3), del(4, 5), incr(3, 6, 7)}, rightIfLost},
		{"counted, and perhaps deleted", []history.Op{incr(1, 0, 1), incr(2, 2, 3), as(del(4, 5), history.Unknown), incr(1, 6, 7), incr(2, 8, 9)}, right},
		{"counted, and read before", []history.Op{incr(1, 0, 1), incr(2, 2, 3), read(1, 4, 5)}, rightIfLost},
		{"counted from a number", []history.Op{{Kind: history.Incr, Key: "k", Number: 7, Initial: 7, Ended: 1}, incr(8, 2, 3)}, right},
	} {
		for _, losses := range []bool{false, true} {
			got := Broken(tt.ops, losses)
			want := tt.want == wrong || tt.want == rightIfLost && !losses
			if (len(got) == 1 && got[0] == "k") != want || len(got) > 1 {
				t.Errorf("%s, losses %v: broken are %q, want %v", tt.name, losses, got, want)
			}
		}
	}
}
