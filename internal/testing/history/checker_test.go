package history

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// naive judges a history as the rules say it, from all that is known at the end: it looks at
// each pair of a read and a change, and at all reads of a value.
func naive(r Rules, ops []Op) (wrong []bool) {
	const ever = 1<<63 - 1
	effective := make([]time.Duration, len(ops)) // of a change: by when it has surely taken effect
	settled := make([]time.Duration, len(ops))   // by when it has, or never will
	sets := map[string]int{}
	id := func(o *Op) string { return fmt.Sprint(o.Key, " ", o.Number) }
	for i := range ops {
		o := &ops[i]
		effective[i], settled[i] = ever, ever
		if o.Acked() {
			effective[i], settled[i] = o.Ended, o.Ended
		}
		if r.Late > 0 {
			settled[i] = min(settled[i], o.Began+r.Late)
		}
		if o.Kind == Set {
			sets[id(o)] = i
		}
	}
	for i := range ops {
		if o := &ops[i]; o.Kind == Read && o.Outcome == Done {
			if w, ok := sets[id(o)]; ok && ops[w].Began < o.Ended {
				effective[w], settled[w] = min(effective[w], o.Ended), min(settled[w], o.Ended)
			}
		}
	}
	for i := range ops {
		o := &ops[i]
		wrong = append(wrong, false)
		if o.Kind != Read || o.Outcome != Done {
			continue
		}
		w, ok := sets[id(o)]
		wrong[i] = !ok || ops[w].Refused() || ops[w].Began > o.Ended ||
			ops[w].TTL > 0 && ops[w].Acked() && o.Began > ops[w].Ended+ops[w].TTL+time.Millisecond+r.Slack
		for j := range ops {
			e := &ops[j]
			if !ok || j == w || e.Kind == Read || e.Kind == Touch || e.Kind != Flush && e.Key != o.Key || e.Began <= settled[w] {
				continue
			}
			acked := e.Acked() && o.Began > e.Ended+r.Slack
			wrong[i] = wrong[i] || acked && (e.Host == o.Host || e.All) ||
				effective[j] < ever && (o.Began > effective[j]+r.Bound+r.Slack || o.Fresh && o.Began > effective[j]+r.Slack)
		}
	}
	return wrong
}

// invented returns a history at random, in which many reads are wrong. No two times are equal.
func invented(rnd *rand.Rand, n int) (ops []Op) {
	times := rnd.Perm(100 * n)
	number := map[string]int64{}
	for i := range n {
		at, other := time.Duration(times[2*i])*unit, time.Duration(times[2*i+1])*unit
		o := Op{Key: fmt.Sprint("k", rnd.IntN(2)), Host: fmt.Sprint("h", rnd.IntN(3)), Began: at}
		if o.Ended = at + time.Duration(rnd.IntN(300))*unit + 1 + time.Duration(i); rnd.IntN(10) == 0 {
			o.Began, o.Ended = min(at, other), max(at, other)
		}
		if rnd.IntN(4) == 0 {
			o.Outcome = []Outcome{Unknown, Silent, Busy, Unavailable, Absent}[rnd.IntN(5)]
		}
		switch rnd.IntN(12) {
		case 0:
			o.Kind, o.All = Delete, rnd.IntN(4) == 0
		case 1:
			if o.Kind = Flush; rnd.IntN(3) > 0 {
				o.Kind = Delete
			}
		case 2, 3, 4, 5:
			o.Kind, o.All = Set, rnd.IntN(8) == 0
			if rnd.IntN(4) == 0 {
				o.TTL = time.Duration(rnd.IntN(3000)) * unit
			}
		default:
			o.Fresh = rnd.IntN(4) == 0
		}
		if o.Kind == Flush {
			o.Key = ""
		}
		ops = append(ops, o)
	}
	slices.SortFunc(ops, func(a, b Op) int { return int(a.Began - b.Began) })
	for i := range ops {
		switch o := &ops[i]; o.Kind {
		case Set:
			number[o.Key]++
			o.Number = number[o.Key]
		case Read: // mostly of the latest values
			o.Number = max(0, number[o.Key]+1-int64(rnd.ExpFloat64()*3))
		}
	}
	return ops
}

// TestCheckerAgrees: a Checker, which forgets and sees no future, finds the same reads wrong as
// the rules do that know the whole history.
func TestCheckerAgrees(t *testing.T) {
	testenv.Takes(t, 2*time.Second)
	seen := map[Rule]int{}
	right, runs := 0, 1500
	for seed := range uint64(runs) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		rules := Rules{Bound: time.Duration(rnd.IntN(3)) * s / 2}
		if rnd.IntN(2) == 0 {
			rules.Late = time.Duration(1+rnd.IntN(2000)) * unit
		}
		if rnd.IntN(3) == 0 {
			rules.Slack = time.Duration(rnd.IntN(100)) * unit
		}
		ops := invented(rnd, 20+rnd.IntN(200))
		want := naive(rules, ops)
		got := make([]Verdict, len(ops))
		for _, v := range Check(rules, ops) {
			at := slices.IndexFunc(ops, func(o Op) bool { return o == v.Op })
			if got[at] = v; v.Rule == ReadRefused && v.Op.Kind == Set { // it was read before it was refused
				got[at] = Verdict{}
				for i, o := range ops {
					if o.Kind == Read && o.Outcome == Done && o.Number == v.Op.Number && o.Key == v.Op.Key && o.Ended < v.Op.Ended && o.Ended > v.Op.Began {
						got[i] = v
					}
				}
			}
			seen[v.Rule]++
		}
		for i := range ops {
			if right++; (got[i].Rule != "") != want[i] {
				for j := range ops {
					if ops[j].Key != "" && ops[j].Key != ops[i].Key || ops[j].Began > ops[i].Ended {
						continue
					}
					t.Log(&ops[j], ops[j].TTL)
				}
				t.Fatalf("seed %d, rules %+v: wrong %v, want %v: %v; %v", seed, rules, got[i].Rule != "", want[i], &ops[i], got[i])
			}
		}
	}
	t.Logf("%d operations; %v", right, seen)
	for _, rule := range []Rule{Unwritten, ReadRefused, Own, AckAll, Newest, Bound, Expired} {
		if seen[rule] < 100 {
			t.Errorf("only %d of %q", seen[rule], rule)
		}
	}
}

// TestCheckFindsOneInMany: one wrong read among many right ones is found, and many equal
// violations are summed up.
func TestCheckFindsOneInMany(t *testing.T) {
	const keys, rounds = 100, 50
	var ops []Op
	at := time.Duration(0)
	tick := func() time.Duration { at += time.Millisecond; return at }
	for round := range rounds {
		for key := range keys {
			name := fmt.Sprint("key", key)
			ops = append(ops, Op{Kind: Set, Key: name, Number: int64(round), Host: fmt.Sprint("n", key%3), Began: tick(), Ended: tick()})
			for node := range 3 {
				ops = append(ops, Op{Key: name, Number: int64(round), Host: fmt.Sprint("n", node), Began: tick(), Ended: tick()})
			}
		}
	}
	r := Rules{Bound: time.Second}
	if got := Check(r, ops); len(got) > 0 {
		t.Fatalf("got %q, want nothing wrong", Lines(got))
	}
	wrong := &ops[len(ops)/2+1]
	if wrong.Kind != Read {
		t.Fatal("the test changes a write")
	}
	wrong.Number -= 10
	if got := Lines(Check(r, ops)); len(got) != 1 || !strings.Contains(got[0], wrong.Key+",") {
		t.Errorf("got %q, want one violation", got)
	}
	for i := range ops {
		ops[i].Outcome = Odd
	}
	if got := Lines(r.Answers(ops, 0)); len(got) != 6 || !strings.HasPrefix(got[5], fmt.Sprint("... and ", len(ops)-5, " more")) {
		t.Errorf("got %d lines, want 5 and how many more: %q", len(got), got)
	}
}

// TestCheckerForgets: what a Checker keeps does not grow with the history, and a value from long
// ago is wrong still.
func TestCheckerForgets(t *testing.T) {
	c := NewChecker(Rules{Bound: s})
	at := time.Duration(0)
	do := func(o Op) Verdict {
		at += unit
		o.Began = at
		r := c.Begin(o)
		at += unit
		r.Ended = at
		return c.End(r)
	}
	most := 0
	slow := c.Begin(read("slow", 1, 0, 0)) // sees what it might: nothing is forgotten before it has ended
	const writes = 20_000
	for i := range int64(writes) {
		if o := set("a", i, 0, 0); i%7 == 0 {
			do(as(o, Busy))
		} else {
			do(o)
		}
		do(touch("a", 1000, 0, 0))
		do(as(del("b", 0, 0), Unknown))
		do(del("b", 0, 0))
		do(flush("a", 0, 0))
		k := c.keys["k"]
		if n := len(k.changes) + len(k.values) + len(k.touches) + len(c.flushes); i > 1000 {
			most = max(most, n)
		}
		if i == 500 {
			if k.values[1] == nil {
				t.Fatal("the value that a read under way may return is forgotten")
			}
			if v := c.End(slow); v.Rule != "" {
				t.Errorf("the slow read: %v", v)
			}
		}
	}
	if most > 2000 || most < 300 {
		t.Errorf("%d changes, touches and values were kept", most)
	}
	for _, n := range []int64{1, 7, writes - 1000, c.keys["k"].dropped} {
		if v := do(read("c", n, 0, 0)); v.Rule != Bound || v.Stale < s {
			t.Errorf("number %d: %v, stale by %v", n, v, v.Stale)
		}
	}
	if v := do(read("c", writes, 0, 0)); v.Rule != Unwritten {
		t.Errorf("a number that was never set: %v", v)
	}
	if v := do(set("a", writes, 0, 0)); v.Rule != "" {
		t.Errorf("the next one: %v", v)
	}
	if v := do(read("a", writes, 0, 0)); v.Rule != "" {
		t.Errorf("the last one: %v", v)
	}
}

// TestCheckerKeepsTouches: a touch counts for a value whose write was under way, however long.
func TestCheckerKeepsTouches(t *testing.T) {
	c := NewChecker(Rules{Bound: s})
	end := func(r *Running, at time.Duration) Verdict { r.Ended = at * unit; return c.End(r) }
	slow := c.Begin(lasts(set("a", 1, 1, 0), 10))
	end(c.Begin(touch("a", 3600_000, 2, 0)), 3)
	for i := range time.Duration(100) {
		end(c.Begin(set("a", int64(i)+2, 100*i+10, 0)), 100*i+11)
	}
	end(slow, 10_000)
	if v := end(c.Begin(read("a", 1, 11_000, 0)), 11_001); v.Rule != "" {
		t.Errorf("got %v", v)
	}
}
