package history

import "testing"

// TestCounters: a counter that may be lost.
func TestCounters(t *testing.T) {
	check(t, Rules{}, []row{
		{"two of one number met, and a deletion came between", []Op{incr(1, 0, 1), incr(2, 10, 90), incr(2, 30, 31), del("a", 40, 41), incr(1, 50, 51)}, ""},
		{"two of one number met, and nothing came between", []Op{incr(1, 0, 1), incr(2, 10, 90), incr(2, 30, 31)}, Back},
		{"one that was never begun", []Op{incr(1, 0, 1), incr(3, 2, 3)}, Unreached},
		{"one that began later", []Op{incr(1, 0, 1), incr(3, 2, 3), lost(4)}, Unreached},
		{"one that was refused", []Op{as(lost(0), Unavailable), incr(2, 2, 3)}, Unreached},
		{"lost", []Op{incr(1, 0, 1), incr(2, 2, 3), incr(1, 4, 5), incr(2, 6, 7)}, ""},
		{"back", []Op{incr(1, 0, 1), incr(2, 2, 3), incr(3, 4, 5), incr(3, 6, 7)}, Back},
		{"back to what was", []Op{incr(1, 0, 1), incr(2, 2, 3), incr(3, 4, 5), incr(4, 6, 7), incr(1, 8, 9), incr(3, 10, 11)}, Back},
		{"or so many of unknown outcome", []Op{incr(1, 0, 1), incr(2, 2, 3), incr(3, 4, 5), incr(1, 6, 7), lost(8), incr(3, 9, 10)}, ""},
		{"twice at once", []Op{incr(1, 0, 1), incr(2, 2, 9), incr(2, 3, 9)}, Back},
		{"twice at once, afresh", []Op{incr(1, 0, 1), incr(2, 2, 9), incr(1, 3, 4), incr(2, 5, 9)}, ""},
		{"deleted, and there again", []Op{incr(1, 0, 1), incr(2, 2, 3), del("b", 4, 5), incr(3, 6, 7)}, Back},
		{"flushed, and there again", []Op{incr(1, 0, 1), incr(2, 2, 3), flush("b", 4, 5), incr(3, 6, 7)}, Back},
		{"read what nobody counted", []Op{incr(1, 0, 1), read("a", 2, 2, 3)}, Unreached},
		{"read beyond the bound", []Op{incr(1, 0, 1), incr(2, 2, 3), read("b", 1, 3000, 3000)}, Back},
		{"read through the same host", []Op{incr(1, 0, 1), incr(2, 2, 3), read("a", 1, 4, 5)}, Back},
		{"read fresh", []Op{incr(1, 0, 1), incr(2, 2, 3), fresh(read("b", 1, 4, 5))}, Back},
		{"read what was deleted", []Op{incr(1, 0, 1), del("b", 2, 3), read("c", 1, 3000, 3000)}, Back},
		{"read what was flushed", []Op{incr(1, 0, 1), flush("b", 2, 3), read("c", 1, 3000, 3000)}, Back},
		{"read twice, and back", []Op{incr(1, 0, 1), incr(2, 2, 3), read("b", 2, 4, 5), read("b", 1, 6, 7)}, ""},
		{"read afresh", []Op{incr(1, 0, 1), incr(2, 2, 3), incr(1, 4, 5), read("b", 1, 3000, 3000)}, ""},
	})
}

// TestLosslessCounters: only a deletion starts a counter again.
func TestLosslessCounters(t *testing.T) {
	check(t, Rules{Lossless: true}, []row{
		{"nothing", nil, ""},
		{"one after the other", []Op{incr(1, 0, 1), incr(2, 2, 3), incr(3, 4, 5)}, ""},
		{"at once", []Op{incr(2, 0, 9), incr(1, 0, 9), incr(3, 0, 9)}, ""},
		{"one of unknown outcome", []Op{lost(0), incr(2, 2, 3)}, ""},
		{"which was not executed", []Op{lost(0), incr(1, 2, 3)}, ""},
		{"one is missed", []Op{incr(2, 0, 9), lost(0), incr(1, 10, 11)}, Restarted},
		{"one is missed, and another seen", []Op{incr(1, 0, 1), lost(2), incr(2, 2, 3), incr(2, 5, 6)}, Restarted},
		{"one is missed, and the number is new", []Op{incr(2, 0, 9), lost(0), incr(1, 0, 11), incr(4, 12, 13), lost(0), incr(3, 20, 21)}, Restarted},
		{"lost without a loss", []Op{incr(1, 0, 1), incr(2, 2, 3), incr(1, 4, 5)}, Restarted},
		{"deleted", []Op{incr(1, 0, 1), incr(2, 2, 3), del("b", 4, 5), incr(1, 6, 7)}, ""},
		{"flushed", []Op{incr(1, 0, 1), incr(2, 2, 3), flush("b", 4, 5), incr(1, 6, 7)}, ""},
		{"perhaps deleted", []Op{incr(1, 0, 1), incr(2, 2, 3), as(del("b", 4, 0), Unknown), incr(1, 6, 7)}, ""},
		{"deleted meanwhile", []Op{incr(1, 0, 1), del("b", 2, 5), incr(2, 3, 4)}, ""},
		{"read", []Op{incr(1, 0, 1), read("b", 1, 2, 3)}, ""},
		{"read within the bound", []Op{incr(1, 0, 1), incr(2, 2, 3), read("b", 1, 4, 5)}, ""},

		// A deletion also stands for a start at zero, if an absent counter is not counted.
		{"begun, and counted by two", []Op{del("a", 0, 1), incr(1, 2, 3), incr(2, 4, 5)}, ""},
		{"begun, and counted to one by two", []Op{del("a", 0, 1), incr(1, 2, 3), incr(1, 4, 5)}, Restarted},
		{"counted back", []Op{lost(0), incr(2, 2, 3), incr(1, 4, 5)}, Restarted},
		{"begun again", []Op{del("a", 0, 1), incr(1, 2, 3), del("a", 4, 5), incr(1, 6, 7)}, ""},
		{"begun again in vain", []Op{del("a", 0, 1), incr(1, 2, 3), as(del("a", 4, 5), NotStored), incr(1, 6, 7)}, Restarted},
	})
}

// TestInitials: an absent counter starts at a number that only one INCR has.
func TestInitials(t *testing.T) {
	one, two, three := from(incr(10, 0, 1), 10), from(incr(11, 2, 3), 20), from(incr(12, 4, 5), 30)
	check(t, Rules{Late: s}, []row{
		{"in order", []Op{one, two, three, fresh(read("b", 12, 6, 7))}, ""},
		{"lost, and afresh", []Op{one, two, from(incr(30, 4, 5), 30)}, ""},
		{"not reached", []Op{one, two, from(incr(13, 4, 5), 30)}, Unreached},
		{"below each start", []Op{one, fresh(read("b", 9, 6, 7))}, Unreached},
		{"of unknown outcome", []Op{one, from(lost(2), 20), from(incr(12, 4, 5), 30)}, ""},
		{"lost, and started by one of unknown outcome", []Op{one, two, from(lost(3), 20), from(incr(21, 4, 5), 30)}, ""},
		{"twice the same", []Op{one, two, from(incr(11, 4, 5), 30)}, Back},
		{"an earlier one", []Op{one, two, three, fresh(read("b", 11, 6, 7))}, Back},
		{"started late", []Op{from(lost(0), 5), from(incr(10, 1, 2), 10), from(incr(6, 3, 4), 20)}, ""},
		{"started too late", []Op{from(lost(0), 5), from(incr(10, 1500, 1502), 10), from(incr(6, 1503, 1504), 20)}, Back},
	})
}
