package linear

import (
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/verify"
)

func op(kind verify.Kind, number int64, began, ended time.Duration) verify.Op {
	return verify.Op{Kind: kind, Key: "k", Number: number, Began: began, Ended: ended}
}

func as(o verify.Op, out verify.Outcome) verify.Op { o.Outcome = out; return o }

// TestBroken: which histories of one key are linearizable, without losses and with them.
func TestBroken(t *testing.T) {
	set := func(n int64, began, ended time.Duration) verify.Op { return op(verify.Set, n, began, ended) }
	del := func(began, ended time.Duration) verify.Op { return op(verify.Delete, 0, began, ended) }
	incr := func(n int64, began, ended time.Duration) verify.Op { return op(verify.Incr, n, began, ended) }
	copied := func(n int64, began, ended time.Duration) verify.Op { return op(verify.Read, n, began, ended) }
	read := func(n int64, began, ended time.Duration) verify.Op {
		o := op(verify.Read, n, began, ended)
		if o.Fresh = true; n == 0 {
			o.Outcome = verify.Absent
		}
		return o
	}
	const right, wrong, rightIfLost = 0, 1, 2
	for _, tt := range []struct {
		name string
		ops  []verify.Op
		want int
	}{
		{"nothing", nil, right},
		{"in order", []verify.Op{set(1, 0, 1), read(1, 2, 3), set(2, 4, 5), read(2, 6, 7), del(8, 9), read(0, 10, 11)}, right},
		{"the one before", []verify.Op{set(1, 0, 1), set(2, 2, 3), read(1, 4, 5)}, wrong},
		{"the one before, not fresh", []verify.Op{set(1, 0, 1), set(2, 2, 3), copied(1, 4, 5)}, right},
		{"either while it is written", []verify.Op{set(1, 0, 1), set(2, 2, 9), read(1, 3, 4), read(2, 5, 6)}, right},
		{"and back", []verify.Op{set(1, 0, 1), set(2, 2, 9), read(2, 3, 4), read(1, 5, 6)}, wrong},
		{"a miss", []verify.Op{set(1, 0, 1), read(0, 2, 3)}, rightIfLost},
		{"what was deleted", []verify.Op{set(1, 0, 1), del(2, 3), read(1, 4, 5)}, wrong},
		{"what was flushed", []verify.Op{set(1, 0, 1), {Kind: verify.Flush, Began: 2, Ended: 3}, read(1, 4, 5)}, wrong},
		{"what was refused", []verify.Op{set(1, 0, 1), as(set(2, 2, 3), verify.Busy), read(2, 4, 5)}, wrong},
		{"of unknown outcome", []verify.Op{set(1, 0, 1), as(set(2, 2, 3), verify.Unknown), read(1, 4, 5), read(2, 6, 7)}, right},
		{"of unknown outcome, and back", []verify.Op{set(1, 0, 1), as(set(2, 2, 3), verify.Unknown), read(2, 4, 5), read(1, 6, 7)}, wrong},
		{"perhaps deleted", []verify.Op{set(1, 0, 1), as(del(2, 3), verify.Unknown), read(0, 4, 5)}, right},
		{"perhaps deleted, and back", []verify.Op{set(1, 0, 1), as(del(2, 3), verify.Unknown), read(0, 4, 5), read(1, 6, 7)}, rightIfLost},
		{"another key", []verify.Op{{Kind: verify.Set, Key: "other", Number: 1, Ended: 1}, set(2, 0, 1), read(2, 2, 3)}, right},

		{"counted", []verify.Op{incr(1, 0, 1), incr(2, 2, 3), read(2, 4, 5), incr(3, 6, 7)}, right},
		{"counted at once", []verify.Op{incr(2, 0, 9), incr(1, 0, 9), incr(3, 0, 9)}, right},
		{"counted to one number", []verify.Op{incr(1, 0, 1), incr(2, 2, 3), incr(2, 4, 5)}, rightIfLost},
		{"counted afresh", []verify.Op{incr(1, 0, 1), incr(2, 2, 3), incr(1, 4, 5)}, rightIfLost},
		{"counted by two", []verify.Op{incr(1, 0, 1), incr(3, 2, 3)}, rightIfLost},
		{"counted by two, perhaps", []verify.Op{incr(1, 0, 1), as(incr(0, 1, 1), verify.Unknown), incr(3, 2, 3)}, right},
		{"counted, and deleted", []verify.Op{incr(1, 0, 1), incr(2, 2, 3), del(4, 5), incr(1, 6, 7)}, right},
		{"counted, and deleted in vain", []verify.Op{incr(1, 0, 1), incr(2, 2, 3), del(4, 5), incr(3, 6, 7)}, rightIfLost},
		{"counted, and perhaps deleted", []verify.Op{incr(1, 0, 1), incr(2, 2, 3), as(del(4, 5), verify.Unknown), incr(1, 6, 7), incr(2, 8, 9)}, right},
		{"counted, and read before", []verify.Op{incr(1, 0, 1), incr(2, 2, 3), read(1, 4, 5)}, rightIfLost},
		{"counted from a number", []verify.Op{{Kind: verify.Incr, Key: "k", Number: 7, Initial: 7, Ended: 1}, incr(8, 2, 3)}, right},
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
