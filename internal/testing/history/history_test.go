package history

import (
	"strings"
	"testing"
	"time"
)

const (
	s    = time.Second
	unit = time.Millisecond // of the tables
)

// The tables' operations. Times are in milliseconds.

func set(host string, number int64, began, ended time.Duration) Op {
	return Op{Kind: Set, Key: "k", Host: host, Number: number, Began: began * unit, Ended: ended * unit}
}

func del(host string, began, ended time.Duration) Op {
	return Op{Kind: Delete, Key: "k", Host: host, Began: began * unit, Ended: ended * unit}
}

func flush(host string, began, ended time.Duration) Op {
	return Op{Kind: Flush, Host: host, Began: began * unit, Ended: ended * unit}
}

func touch(host string, ttl, began, ended time.Duration) Op {
	return Op{Kind: Touch, Key: "k", Host: host, TTL: ttl * unit, Began: began * unit, Ended: ended * unit}
}

func incr(number int64, began, ended time.Duration) Op {
	return Op{Kind: Incr, Key: "k", Number: number, Host: "a", Began: began * unit, Ended: ended * unit}
}

// lost is an Incr of unknown outcome.
func lost(began time.Duration) Op { return as(incr(0, began, 0), Unknown) }

func read(host string, number int64, began, ended time.Duration) Op {
	return Op{Kind: Read, Key: "k", Host: host, Number: number, Began: began * unit, Ended: ended * unit}
}

func as(o Op, out Outcome) Op               { o.Outcome = out; return o }
func fresh(o Op) Op                         { o.Fresh = true; return o }
func all(o Op) Op                           { o.All = true; return o }
func lasts(o Op, ttl time.Duration) Op      { o.TTL = ttl * unit; return o }
func from(o Op, initial int64) Op           { o.Initial = initial; return o }
func origin(o Op, commit time.Duration) Op  { o.Origin, o.Committed = true, commit*unit; return o }
func within(o Op, timeout time.Duration) Op { o.Timeout = timeout * unit; return o }

type row struct {
	name string
	ops  []Op
	want Rule // the one violation; empty: none
}

// check judges a table, each row of it with the rules given and a bound of 2 s.
func check(t *testing.T, r Rules, rows []row) {
	t.Helper()
	r.Bound = 2 * s
	judged(t, rows, func(ops []Op) []Verdict { return Check(r, ops) })
}

func judged(t *testing.T, rows []row, judge func([]Op) []Verdict) {
	t.Helper()
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			got := judge(tt.ops)
			switch {
			case tt.want == "" && len(got) > 0:
				t.Errorf("got %q, want nothing wrong", Lines(got))
			case tt.want != "" && (len(got) != 1 || got[0].Rule != tt.want):
				t.Errorf("got %q, want one of %q", Lines(got), tt.want)
			case tt.want != "" && !strings.HasPrefix(got[0].String(), string(tt.want)+": "):
				t.Errorf("got %q, want that it begins with the rule", got[0])
			}
		})
	}
}

// TestValues: which reads are violations, with one writer of the key or many.
func TestValues(t *testing.T) {
	first := set("a", 1, 0, 1)
	second := set("a", 2, 2, 3)
	other := read("b", 1, 2, 3)
	other.Key = "another"
	check(t, Rules{}, []row{
		{"nothing", nil, ""},
		{"in order", []Op{first, read("b", 1, 2, 3), del("a", 4, 5), set("b", 2, 6, 7), read("b", 2, 8, 9)}, ""},
		{"of nobody", []Op{first, read("a", 7, 2, 3)}, Unwritten},
		{"of a deletion", []Op{first, del("a", 2, 3), read("a", 2, 4, 5)}, Unwritten},
		{"of another key", []Op{first, other}, Unwritten},
		{"of a write under way", []Op{set("a", 1, 0, 9), read("b", 1, 2, 3)}, ""},
		{"of the future", []Op{set("a", 1, 8, 9), read("a", 1, 2, 3)}, Unwritten},
		{"two of one number", []Op{first, set("b", 1, 2, 3)}, Twice},
		{"of a refused write", []Op{as(first, Unavailable), read("a", 1, 2, 3)}, ReadRefused},
		{"of a busy one", []Op{as(first, Busy), read("a", 1, 2, 3)}, ReadRefused},
		{"of one that was not stored", []Op{as(first, NotStored), read("a", 1, 2, 3)}, ReadRefused},
		{"of one that is refused later", []Op{as(set("a", 1, 0, 9), Busy), read("a", 1, 2, 3)}, ReadRefused},
		{"of one that timed out", []Op{as(first, Unknown), read("a", 1, 2, 3)}, ""},
		{"refusals", []Op{as(first, Unavailable), as(second, Busy), as(set("a", 3, 4, 5), Unknown), as(read("a", 0, 6, 7), Degraded)}, ""},
		{"a stale value", []Op{first, second, as(read("a", 1, 9000, 9001), Old)}, ""},

		{"one's own overwritten one", []Op{first, second, read("a", 1, 3, 4)}, Own},
		{"overwritten while it is read", []Op{first, set("a", 2, 2, 4), read("a", 1, 3, 5)}, ""},
		{"deleted through the same host", []Op{first, del("a", 2, 3), read("a", 1, 4, 5)}, Own},
		{"deleted what was not there", []Op{first, as(del("a", 2, 3), Absent), read("a", 1, 4, 5)}, Own},
		{"the next process", []Op{set("a.1", 1, 0, 1), set("a.1", 2, 2, 3), read("a.2", 1, 4, 5)}, ""},
		{"of an unknown process", []Op{set("", 1, 0, 1), set("", 2, 2, 3), read("", 1, 4, 5)}, ""},
		{"overwritten, within the bound", []Op{first, second, read("b", 1, 500, 501)}, ""},
		{"overwritten, just within the bound", []Op{first, second, read("b", 1, 2003, 2004)}, ""},
		{"overwritten", []Op{first, set("c", 2, 2, 3), read("b", 1, 2004, 2005)}, Bound},
		{"the next process, beyond the bound", []Op{set("a.1", 1, 0, 1), set("a.1", 2, 2, 3), read("a.2", 1, 3000, 3001)}, Bound},
		{"deleted within the bound", []Op{first, del("a", 2, 3), read("b", 1, 4, 5)}, ""},
		{"deleted", []Op{first, del("a", 2, 3), read("b", 1, 3000, 3000)}, Bound},
		{"two behind", []Op{first, second, set("a", 3, 3000, 3001), read("b", 1, 3002, 3003)}, Bound},
		{"perhaps deleted", []Op{first, as(del("a", 2, 3), Unknown), read("b", 1, 9000, 9001)}, ""},
		{"perhaps overwritten", []Op{first, as(second, Unknown), read("b", 1, 9000, 9001)}, ""},
		{"overwritten by what was refused", []Op{first, as(second, Unavailable), read("b", 1, 9000, 9001)}, ""},
		{"read fresh", []Op{first, set("b", 2, 2, 3), fresh(read("c", 2, 4, 5))}, ""},
		{"deleted, and read fresh", []Op{first, del("a", 2, 3), fresh(read("b", 1, 4, 5))}, Newest},
		{"deleted while it was set", []Op{set("a", 1, 0, 9), del("b", 2, 3), read("a", 1, 5000, 5001)}, ""},
		{"either of two at once", []Op{set("a", 1, 0, 9), set("b", 2, 1, 8), read("c", 1, 3000, 3001), read("c", 2, 4000, 4001)}, ""},

		{"of unknown outcome, and late", []Op{as(first, Unknown), del("a", 2, 3), read("b", 1, 9000, 9001)}, ""},
		{"late beside another", []Op{first, as(second, Unknown), set("a", 3, 4, 5), read("a", 2, 9000, 9001)}, ""},
		{"and comes back", []Op{as(first, Unknown), read("b", 1, 2, 3), del("a", 4, 5), read("b", 1, 9000, 9001)}, Bound},
		{"and comes back to its writer", []Op{as(second, Silent), read("b", 2, 4, 5), set("a", 3, 6, 7), read("a", 2, 8, 9)}, Own},
		{"was read, and is no longer", []Op{first, as(second, Unknown), read("c", 2, 4, 5), read("b", 1, 3000, 3001)}, Bound},
		{"was read, and within the bound is not", []Op{first, as(second, Unknown), read("c", 2, 4, 5), read("a", 1, 6, 7)}, ""},
		{"was read, and then fresh is not", []Op{first, as(second, Unknown), fresh(read("b", 2, 4, 5)), fresh(read("b", 1, 6, 7))}, Newest},

		{"acknowledged by all", []Op{first, all(second), read("b", 1, 4, 5)}, AckAll},
		{"acknowledged by all, while it is read", []Op{first, all(second), read("b", 1, 2, 5)}, ""},
		{"deleted at all", []Op{first, all(del("a", 2, 3)), read("b", 1, 4, 5)}, AckAll},
		{"perhaps at all", []Op{first, all(as(second, Unknown)), read("b", 1, 9000, 9001)}, ""},

		{"flushed, within the bound", []Op{first, flush("a", 2, 3), read("b", 1, 500, 501)}, ""},
		{"flushed", []Op{first, flush("a", 2, 3), read("b", 1, 2004, 2005)}, Bound},
		{"flushed through the same process", []Op{first, flush("a", 2, 3), read("a", 1, 4, 5)}, Own},
		{"perhaps flushed", []Op{first, as(flush("a", 2, 3), Unknown), read("a", 1, 9000, 9001)}, ""},
		{"written while it was flushed", []Op{flush("a", 0, 3), set("a", 1, 1, 2), read("a", 1, 9000, 9001)}, ""},
		{"written after the flush", []Op{flush("a", 0, 1), set("a", 1, 2, 3), read("a", 1, 9000, 9001)}, ""},
	})
}

// TestLate: a change is executed in time, or never.
func TestLate(t *testing.T) {
	x := as(set("a", 1, 0, 1), Unknown)
	check(t, Rules{Late: 5 * s}, []row{
		{"with effect", []Op{x, read("a", 1, 2, 3)}, ""},
		{"without effect", []Op{set("a", 0, 0, 1), as(set("a", 1, 2, 3), Unknown), read("a", 0, 9000, 9001)}, ""},
		{"behind a later one", []Op{x, set("a", 2, 500, 600), read("a", 1, 900, 901)}, ""},
		{"behind a later one, and there since", []Op{x, set("a", 2, 500, 600), read("a", 1, 8000, 8001)}, ""},
		{"too late", []Op{x, set("a", 2, 5001, 5002), read("a", 1, 5003, 5004)}, Own},
		{"just in time", []Op{x, set("a", 2, 5000, 5002), read("a", 1, 5003, 5004)}, ""},
		{"perhaps touched long before", []Op{as(touch("b", 9000, 0, 1), Unknown), lasts(set("a", 1, 5001, 5002), 10), read("a", 1, 6000, 6001)}, Expired},
		{"perhaps touched late", []Op{as(touch("b", 9000, 0, 1), Unknown), lasts(set("a", 1, 5000, 5002), 10), read("a", 1, 6000, 6001)}, ""},
		{"in its time, however long its answer takes", []Op{set("a", 1, 0, 6000), set("a", 2, 5000, 5002), read("a", 1, 7000, 7001)}, ""},
		{"after its time, and acknowledged", []Op{set("a", 1, 0, 6000), set("a", 2, 5001, 5002), read("a", 1, 7000, 7001)}, Own},
	})
}

// TestSlack: the slack is added to every time.
func TestSlack(t *testing.T) {
	first := set("a", 1, 0, 1)
	check(t, Rules{Slack: 30 * unit}, []row{
		{"one's own", []Op{first, set("a", 2, 2, 3), read("a", 1, 33, 34)}, ""},
		{"one's own, later", []Op{first, set("a", 2, 2, 3), read("a", 1, 34, 35)}, Own},
		{"fresh", []Op{first, set("a", 2, 2, 3), fresh(read("b", 1, 33, 34))}, ""},
		{"fresh, later", []Op{first, set("a", 2, 2, 3), fresh(read("b", 1, 34, 35))}, Newest},
		{"another's", []Op{first, set("a", 2, 2, 3), read("b", 1, 2033, 2034)}, ""},
		{"another's, later", []Op{first, set("a", 2, 2, 3), read("b", 1, 2034, 2035)}, Bound},
		{"expired", []Op{lasts(first, 10), read("a", 1, 42, 43)}, ""},
		{"expired before", []Op{lasts(first, 10), read("a", 1, 43, 44)}, Expired},
	})
}

// TestExpiry: a value ends with its TTL, which TOUCH changes.
func TestExpiry(t *testing.T) {
	short := lasts(set("a", 1, 0, 1), 1000)
	check(t, Rules{}, []row{
		{"until it ends", []Op{short, read("b", 1, 1001, 1002)}, ""},
		{"until the millisecond is over", []Op{short, read("b", 1, 1002, 1003)}, ""},
		{"after it has ended", []Op{short, read("b", 1, 1003, 1004)}, Expired},
		{"of unknown outcome", []Op{as(short, Unknown), read("b", 1, 9000, 9001)}, ""},
		{"touched", []Op{short, touch("b", 3000, 2, 3), read("b", 1, 3004, 3005)}, ""},
		{"touched, and ended", []Op{short, touch("b", 3000, 2, 3), read("b", 1, 3005, 3006)}, Expired},
		{"perhaps touched", []Op{short, as(touch("b", 3000, 2, 3), Unknown), read("b", 1, 9000, 9001)}, ""},
		{"touched in vain", []Op{short, as(touch("b", 3000, 2, 3), Absent), read("b", 1, 2000, 2001)}, Expired},
		{"touched before", []Op{touch("b", 9000, 0, 1), lasts(set("a", 1, 2, 3), 1000), read("b", 1, 2000, 2001)}, Expired},
		{"made shorter", []Op{short, touch("b", 10, 2, 3), read("b", 1, 15, 16)}, Expired},
		{"made shorter, and not heard of", []Op{short, touch("b", 10, 2, 3), read("a", 1, 1001, 1002)}, ""},
		{"made shorter, and the end from before", []Op{short, touch("b", 10, 2, 3), read("a", 1, 1003, 1004)}, Expired},
		{"made shorter, and fresh", []Op{short, touch("b", 10, 2, 3), fresh(read("a", 1, 15, 16))}, Expired},
		{"made to end", []Op{set("a", 1, 0, 1), touch("b", 10, 2, 3), read("a", 1, 2003, 2004)}, ""},
		{"made to end, beyond the bound", []Op{set("a", 1, 0, 1), touch("b", 10, 2, 3), read("a", 1, 2004, 2005)}, Expired},
	})
}

// TestLoaded: a value that the origin has is loaded again, whatever the cache has dropped.
func TestLoaded(t *testing.T) {
	first, second := origin(set("a", 1, 10, 11), 10), origin(set("a", 2, 20, 21), 20)
	alone := origin(as(set("a", 2, 20, 20), Unknown), 20) // the cache was not told
	hold := func(o Op) Op { return lasts(o, 1000) }
	check(t, Rules{Load: 5 * s}, []row{
		{"its own deletion", []Op{first, read("a", 1, 9000, 9001)}, ""},
		{"flushed, and loaded again", []Op{first, flush("a", 12, 13), read("a", 1, 9000, 9001)}, ""},
		{"deleted, and loaded again", []Op{first, del("a", 12, 13), read("a", 1, 9000, 9001)}, ""},
		{"expired, and loaded again", []Op{hold(first), read("a", 1, 9000, 9001)}, ""},
		{"the next one is announced", []Op{first, second, read("a", 1, 22, 23)}, Own},
		{"the next one is announced elsewhere", []Op{first, second, read("b", 1, 22, 23)}, ""},
		{"and longer ago than the bound", []Op{first, second, read("b", 1, 2022, 2023)}, Bound},
		{"the next one, before it is announced", []Op{first, origin(set("a", 2, 20, 30), 20), read("b", 2, 22, 23), read("b", 1, 24, 25)}, ""},
		{"the next one was read, but not announced", []Op{first, alone, read("b", 2, 22, 23), read("b", 1, 9000, 9001)}, ""},
		{"not announced", []Op{first, alone, read("a", 1, 9000, 9001)}, ""},
		{"not announced, but flushed", []Op{first, alone, flush("a", 30, 31), read("a", 1, 32, 33)}, Own},
		{"not announced, but deleted", []Op{first, alone, del("a", 30, 31), read("b", 1, 9000, 9001)}, Bound},
		{"announced late, and flushed before that", []Op{first, origin(set("a", 2, 20, 9000), 20), flush("a", 30, 31), read("a", 1, 32, 33)}, Own},
		{"not announced, and touched", []Op{hold(first), alone, touch("a", 9000, 30, 31), read("a", 1, 6021, 6022)}, Expired},
		{"not announced, and flushed before", []Op{first, flush("a", 12, 13), alone, read("a", 1, 9000, 9001)}, ""},
		{"not announced, and within a load and the TTL", []Op{hold(first), alone, read("a", 1, 6020, 6021)}, ""},
		{"not announced, and after that", []Op{hold(first), alone, read("a", 1, 6021, 6022)}, Expired},
		{"announced without an outcome", []Op{origin(as(set("a", 1, 10, 11), Unknown), 10), second, read("a", 1, 22, 23)}, Own},
		{"written through, and flushed", []Op{origin(set("a", 1, 10, 11), 0), flush("a", 12, 13), read("a", 1, 9000, 9001)}, ""},
		{"written through, and overwritten", []Op{origin(set("a", 1, 10, 11), 0), origin(set("b", 2, 20, 21), 0), read("b", 1, 22, 23)}, Own},
	})
}

// TestSplit: in a split only one's own writes are sure to be seen.
func TestSplit(t *testing.T) {
	first, second := set("a", 1, 0, 1), set("a", 2, 2, 3)
	check(t, Rules{Excuses: []Excuse{{Split, 2 * s, 9 * s}, {Stall, 0, 99 * s}, {Outage, 0, 99 * s}}}, []row{
		{"in a split", []Op{first, second, read("b", 1, 8000, 8001)}, ""},
		{"fresh in a split", []Op{first, second, fresh(read("b", 1, 8000, 8001))}, ""},
		{"acknowledged by all in a split", []Op{first, all(second), read("b", 1, 8000, 8001)}, ""},
		{"after a split", []Op{first, second, read("b", 1, 9000, 9001)}, Bound},
		{"one's own also in a split", []Op{first, second, read("a", 1, 8000, 8001)}, Own},
		{"expired in a split", []Op{lasts(first, 1000), read("b", 1, 8000, 8001)}, Expired},
	})
}

// TestSplitLong: in a split, what had ended long before may be read.
func TestSplitLong(t *testing.T) {
	ops := []Op{read("b", 1, 8000, 8001), read("b", 40, 8000, 8001), read("b", 1, 9000, 9001)}
	for i := range time.Duration(40) {
		ops = append(ops, set("a", int64(i+1), 2*i, 2*i+1))
	}
	got := Check(Rules{Bound: s, Excuses: []Excuse{{Split, 2 * s, 9 * s}}}, ops)
	if len(got) != 1 || got[0].Rule != Bound || got[0].Op.Began != 9*s {
		t.Errorf("got %q", Lines(got))
	}
}

// TestBy: a verdict tells what had ended the value.
func TestBy(t *testing.T) {
	first, second, third := set("a", 1, 0, 1), set("b", 2, 2, 3), set("a", 3, 4, 5)
	for _, tt := range []struct {
		name string
		ops  []Op
		by   *Op
		want string // the end of the line
	}{
		{"the first that is due", []Op{first, second, third, read("c", 1, 9000, 9001)}, &second, "; the value had ended 8.997s before, by: set of k, number 2, through b, 0.002000 s to 0.003000 s: done"},
		{"one's own", []Op{first, second, third, read("a", 1, 10, 11)}, &third, "; the value had ended 7ms before, by: set of k, number 3, through a, 0.004000 s to 0.005000 s: done"},
		{"a refused one", []Op{as(first, Busy), read("a", 1, 2, 3)}, nil, "; see: set of k, number 1, through a, 0.000000 s to 0.001000 s: busy"},
		{"nobody", []Op{read("a", 1, 2, 3)}, nil, "a value that no app has written: read of k, number 1, through a, 0.002000 s to 0.003000 s: done"},
	} {
		got := Check(Rules{Bound: s}, tt.ops)
		if len(got) != 1 || tt.by != nil && (got[0].By == nil || *got[0].By != *tt.by) || !strings.HasSuffix(got[0].String(), tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, Lines(got), tt.want)
		}
	}
}

// TestMisses: what can explain a miss.
func TestMisses(t *testing.T) {
	short := lasts(set("a", 1, 10, 11), 100)
	for _, tt := range []struct {
		name             string
		ops              []Op // the last is the read
		flushed, expired bool
	}{
		{"nothing", []Op{short, read("b", 0, 20, 21)}, false, false},
		{"no write", []Op{read("b", 0, 20, 21)}, false, false},
		{"a write that is not acknowledged", []Op{as(short, Unknown), flush("a", 12, 13), read("b", 0, 900, 901)}, false, false},
		{"a flush", []Op{short, flush("a", 12, 13), read("b", 0, 20, 21)}, true, false},
		{"a flush before it", []Op{flush("a", 1, 2), short, read("b", 0, 20, 21)}, false, false},
		{"a flush under way", []Op{short, flush("a", 12, 30), read("b", 0, 20, 21)}, false, false},
		{"its end", []Op{short, read("b", 0, 900, 901)}, false, true},
		{"its end by a touch, which the host may not have heard of", []Op{short, touch("a", 10, 20, 21), read("b", 0, 50, 51)}, false, true},
		{"both", []Op{short, flush("a", 12, 13), flush("a", 14, 15), read("b", 0, 900, 901)}, true, true},
	} {
		c := NewChecker(Rules{Bound: 2 * s})
		running := map[int]*Running{}
		for _, e := range inOrder(tt.ops) {
			switch {
			case !e.ends:
				running[e.op] = c.Begin(tt.ops[e.op])
			case e.op == len(tt.ops)-1:
				if flushed, expired := c.Misses(running[e.op], 1); flushed != tt.flushed || expired != tt.expired {
					t.Errorf("%s: flushed %v, expired %v", tt.name, flushed, expired)
				}
			default:
				c.End(running[e.op])
			}
		}
	}
}

// TestVerify: the writes of one host, as VERIFY writes them.
func TestVerify(t *testing.T) {
	const w, n = "self", "n"
	first, second := set(w, 1, 999, 1000), set(w, 2, 1999, 2000)
	check(t, Rules{}, []row{
		{"the latest", []Op{first, second, read(n, 2, 9000, 9001)}, ""},
		{"a copy within the bound", []Op{first, second, read(n, 1, 4000, 4001)}, ""},
		{"a copy beyond it", []Op{first, second, read(n, 1, 4001, 4002)}, Bound},
		{"two writes back", []Op{first, second, set(w, 3, 4999, 5000), read(n, 1, 5000, 5001)}, Bound},
		{"the next one is unknown", []Op{first, as(second, Unknown), read(n, 1, 9000, 9001)}, ""},
		{"the one after that is not", []Op{first, as(second, Unknown), set(w, 3, 2999, 3000), read(n, 1, 9000, 9001)}, Bound},
		{"an unknown one may come late", []Op{first, as(second, Unknown), set(w, 3, 2999, 3000), read(n, 2, 9000, 9001)}, ""},
		{"one not acknowledged yet", []Op{first, set(w, 2, 1999, 3000), read(n, 2, 2000, 2001)}, ""},
		{"what nobody wrote", []Op{first, read(n, 7, 2000, 2001)}, Unwritten},
		{"not one's own write", []Op{first, second, read(w, 1, 2000, 2001)}, Own},
		{"one's own write", []Op{first, second, read(w, 2, 2000, 2001)}, ""},
		{"fresh, and not the latest", []Op{first, second, fresh(read(n, 1, 2000, 2001))}, Newest},
		{"fresh", []Op{first, second, fresh(read(n, 2, 2000, 2001))}, ""},
		{"fresh, and back", []Op{first, set(w, 2, 1500, 3000), fresh(read(n, 2, 1600, 1601)), fresh(read(n, 1, 2000, 2001))}, Newest},
		{"not fresh, and back", []Op{first, set(w, 2, 1500, 3000), fresh(read(n, 2, 1600, 1601)), read(n, 1, 2000, 2001)}, ""},
	})
}

// TestStale: for how long, at least, a value had ended when it was read.
func TestStale(t *testing.T) {
	first, second := set("a", 1, 999, 1000), set("a", 2, 1999, 2000)
	for _, tt := range []struct {
		name string
		ops  []Op
		want time.Duration
	}{
		{"the latest", []Op{first, second, read("b", 2, 9000, 9001)}, 0},
		{"within the bound", []Op{first, second, read("b", 1, 4000, 4001)}, 2 * s},
		{"beyond it", []Op{first, second, read("b", 1, 4001, 4002)}, 2*s + unit},
		{"two behind", []Op{first, second, set("a", 3, 4999, 5000), read("b", 1, 5000, 5001)}, 3 * s},
		{"perhaps overwritten", []Op{first, as(second, Unknown), read("b", 1, 9000, 9001)}, 0},
		{"and then for sure", []Op{first, as(second, Unknown), set("a", 3, 2999, 3000), read("b", 1, 9000, 9001)}, 6 * s},
		{"one that may come late", []Op{first, as(second, Unknown), set("a", 3, 2999, 3000), read("b", 2, 9000, 9001)}, 0},
		{"overwritten while it is read", []Op{first, second, read("b", 1, 1999, 9001)}, 0},
	} {
		c := NewChecker(Rules{Bound: 2 * s})
		var got Verdict
		running := map[int]*Running{}
		for _, e := range inOrder(tt.ops) {
			if !e.ends {
				running[e.op] = c.Begin(tt.ops[e.op])
			} else if v := c.End(running[e.op]); tt.ops[e.op].Kind == Read {
				got = v
			}
		}
		if got.Stale != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got.Stale, tt.want)
		}
	}
}
