package totals

import (
	"strings"
	"testing"
	"time"
)

const s = time.Second

func incr(number int64, began, ended time.Duration) Op {
	return Op{Kind: Incr, Number: number, Host: "a", Began: began, Ended: ended}
}

func lost(began time.Duration) Op { return Op{Kind: Incr, Outcome: Unknown, Host: "a", Began: began} }

func del(host string, began, ended time.Duration) Op {
	return Op{Kind: Delete, Host: host, Began: began, Ended: ended}
}

func read(host string, number int64, began, ended time.Duration) Op {
	return Op{Kind: Read, Host: host, Number: number, Began: began, Ended: ended}
}

func fresh(o Op) Op { o.Fresh = true; return o }

func as(o Op, out Outcome) Op { o.Outcome = out; return o }

type test struct {
	name     string
	lossless bool
	ops      []Op
	want     string // the prefix of the violation; empty: no violation
}

func check(t *testing.T, tests []test, judge func(Rules, []Op) []string) {
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := judge(Rules{Bound: 2 * s, Lossless: tt.lossless}, tt.ops)
			switch {
			case tt.want == "" && len(got) > 0:
				t.Errorf("got %q, want nothing wrong", got)
			case tt.want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], tt.want)):
				t.Errorf("got %q, want one of %q", got, tt.want)
			}
		})
	}
}

func TestCounter(t *testing.T) {
	back, afresh := "a total went back to an earlier one", "a total went back without"
	check(t, []test{
		{"nothing", true, nil, ""},
		{"one after the other", true, []Op{incr(1, 0, 1), incr(2, 2, 3), incr(3, 4, 5)}, ""},
		{"at once", true, []Op{incr(2, 0, 9), incr(1, 0, 9), incr(3, 0, 9)}, ""},
		{"two of one number met, and a deletion came between", false, []Op{incr(1, 0, 1), incr(2, 10, 90), incr(2, 30, 31), del("a", 40, 41), incr(1, 50, 51)}, ""},
		{"two of one number met, and nothing came between", false, []Op{incr(1, 0, 1), incr(2, 10, 90), incr(2, 30, 31)}, back},
		{"one that was never begun", false, []Op{incr(1, 0, 1), incr(3, 2, 3)}, "a total above the 2 that had begun"},
		{"one that began later", false, []Op{incr(1, 0, 1), incr(3, 2, 3), lost(4)}, "a total above the 2 that had begun"},
		{"one that was refused", false, []Op{as(lost(0), Refused), incr(2, 2, 3)}, "a total above the 1 that had begun"},
		{"one of unknown outcome", true, []Op{lost(0), incr(2, 2, 3)}, ""},
		{"which was not executed", true, []Op{lost(0), incr(1, 2, 3)}, ""},
		{"one is missed", true, []Op{incr(2, 0, 9), lost(0), incr(1, 10, 11)}, afresh},
		{"one is missed, and another seen", true, []Op{incr(1, 0, 1), lost(2), incr(2, 2, 3), incr(2, 5, 6)}, afresh},
		{"lost", false, []Op{incr(1, 0, 1), incr(2, 2, 3), incr(1, 4, 5), incr(2, 6, 7)}, ""},
		{"lost without a loss", true, []Op{incr(1, 0, 1), incr(2, 2, 3), incr(1, 4, 5)}, afresh},
		{"back", false, []Op{incr(1, 0, 1), incr(2, 2, 3), incr(3, 4, 5), incr(3, 6, 7)}, back},
		{"back to what was", false, []Op{incr(1, 0, 1), incr(2, 2, 3), incr(3, 4, 5), incr(4, 6, 7), incr(1, 8, 9), incr(3, 10, 11)}, back},
		{"or so many of unknown outcome", false, []Op{incr(1, 0, 1), incr(2, 2, 3), incr(3, 4, 5), incr(1, 6, 7), lost(8), incr(3, 9, 10)}, ""},
		{"twice at once", false, []Op{incr(1, 0, 1), incr(2, 2, 9), incr(2, 3, 9)}, back},
		{"twice at once, afresh", false, []Op{incr(1, 0, 1), incr(2, 2, 9), incr(1, 3, 4), incr(2, 5, 9)}, ""},
		{"deleted", true, []Op{incr(1, 0, 1), incr(2, 2, 3), del("b", 4, 5), incr(1, 6, 7)}, ""},
		{"perhaps deleted", true, []Op{incr(1, 0, 1), incr(2, 2, 3), as(del("b", 4, 0), Unknown), incr(1, 6, 7)}, ""},
		{"deleted, and there again", false, []Op{incr(1, 0, 1), incr(2, 2, 3), del("b", 4, 5), incr(3, 6, 7)}, back},
		{"deleted meanwhile", true, []Op{incr(1, 0, 1), del("b", 2, 5), incr(2, 3, 4)}, ""},
		{"read", true, []Op{incr(1, 0, 1), read("b", 1, 2, 3)}, ""},
		{"read within the bound", true, []Op{incr(1, 0, 1), incr(2, 2, 3), read("b", 1, 4, 5)}, ""},
		{"read beyond it", false, []Op{incr(1, 0, 1), incr(2, 2, 3), read("b", 1, 3*s, 3*s)}, back},
		{"read through the same host", false, []Op{incr(1, 0, 1), incr(2, 2, 3), read("a", 1, 4, 5)}, back},
		{"read fresh", false, []Op{incr(1, 0, 1), incr(2, 2, 3), fresh(read("b", 1, 4, 5))}, back},
		{"read what was deleted", false, []Op{incr(1, 0, 1), del("b", 2, 3), read("c", 1, 3*s, 3*s)}, back},
		{"read afresh", false, []Op{incr(1, 0, 1), incr(2, 2, 3), incr(1, 4, 5), read("b", 1, 3*s, 3*s)}, ""},
	}, Rules.Counter)
}

func TestKey(t *testing.T) {
	set := func(host string, number int64, began, ended time.Duration) Op {
		return Op{Kind: Set, Host: host, Number: number, Began: began, Ended: ended}
	}
	ended := "a value that was ended"
	first := set("a", 1, 0, 1)
	check(t, []test{
		{"nothing", false, nil, ""},
		{"in order", false, []Op{first, read("b", 1, 2, 3), del("a", 4, 5), set("b", 2, 6, 7), read("b", 2, 8, 9)}, ""},
		{"of nobody", false, []Op{first, read("a", 7, 2, 3)}, "a value that was never set"},
		{"refused", false, []Op{as(first, Refused), read("a", 1, 2, 3)}, "the value of a SET that was refused"},
		{"of the future", false, []Op{set("a", 1, 8, 9), read("a", 1, 2, 3)}, "a value before it was set"},
		{"deleted within the bound", false, []Op{first, del("a", 2, 3), read("b", 1, 4, 5)}, ""},
		{"deleted", false, []Op{first, del("a", 2, 3), read("b", 1, 3*s, 3*s)}, ended},
		{"deleted through the same host", false, []Op{first, del("a", 2, 3), read("a", 1, 4, 5)}, ended},
		{"deleted, and read fresh", false, []Op{first, del("a", 2, 3), fresh(read("b", 1, 4, 5))}, ended},
		{"perhaps deleted", false, []Op{first, as(del("a", 2, 3), Unknown), read("b", 1, 3*s, 3*s)}, ""},
		{"deleted while it was set", false, []Op{set("a", 1, 0, 9), del("b", 2, 3), read("a", 1, 5*s, 5*s)}, ""},
		{"overwritten", false, []Op{first, set("c", 2, 2, 3), read("b", 1, 3*s, 3*s)}, ended},
		{"either of two at once", false, []Op{set("a", 1, 0, 9), set("b", 2, 1, 8), read("c", 1, 3*s, 3*s), read("c", 2, 4*s, 4*s)}, ""},
		{"one of unknown outcome comes late", false, []Op{as(first, Unknown), del("a", 2, 3), read("b", 1, 9*s, 9*s)}, ""},
		{"and comes back", false, []Op{as(first, Unknown), read("b", 1, 2, 3), del("a", 4, 5), read("b", 1, 9*s, 9*s)}, ended},
	}, Rules.Key)
}
