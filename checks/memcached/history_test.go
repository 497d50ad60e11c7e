package memcached

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// event is what a worker did and what came of it. A key with a colon has an owner, the
// worker whose name stands before the colon: it alone writes the key. The others are counters
// of all.
type event struct {
	Worker string  `json:"worker"`
	Op     string  `json:"op"` // write, read, begin (of a counter at 0), count
	Key    string  `json:"key"`
	Seq    int     `json:"seq"`   // of a write: its place among the key's writes; of a count: the result
	Value  string  `json:"value"` // all of it; of a write, "" deletes
	Start  float64 `json:"start"` // by the machine's clock, in seconds
	End    float64 `json:"end"`
	Out    string  `json:"out"` // ok, miss, failed (without effect), unknown
	Error  string  `json:"error"`
}

// window is a time in which calls may fail: a host restarts, or the machine stands still.
type window struct{ start, end float64 }

const (
	// bound is how long a value may be read by others once it has been overwritten.
	bound = 2.0
	// slack is for the time between an answer and the clock of the worker.
	slack = 0.5
)

func now() float64 { return float64(time.Now().UnixNano()) / 1e9 }

// check returns what the events do not explain. Misses need no explanation.
func check(events []event, excused []window) []string {
	c := checker{writes: map[string][]event{}, counts: map[string][]event{}}
	slices.SortStableFunc(events, func(a, b event) int {
		if a.Start < b.Start {
			return -1
		}
		return 1
	})
	for _, e := range events {
		switch e.Op {
		case "write":
			c.writes[e.Key] = append(c.writes[e.Key], e)
		case "begin", "count":
			c.counts[e.Key] = append(c.counts[e.Key], e)
		}
		if e.Out == "unknown" && !within(e, excused) {
			c.say(e, "an error, though no host restarts, and the machine runs")
		}
	}
	for _, e := range events {
		if e.Op == "read" && e.Out == "ok" {
			c.read(e)
		}
	}
	for _, list := range c.counts {
		c.counter(list)
	}
	return c.found
}

func within(e event, list []window) bool {
	return slices.ContainsFunc(list, func(w window) bool { return e.Start <= w.end && e.End >= w.start })
}

type checker struct {
	writes map[string][]event // by key, in their order
	counts map[string][]event
	found  []string
}

func (c *checker) say(e event, what string) {
	c.found = append(c.found, fmt.Sprintf("%s: %s: %+v", e.Key, what, e))
}

// read explains a value by the write that it is of.
func (c *checker) read(e event) {
	list := c.writes[e.Key]
	i := slices.IndexFunc(list, func(w event) bool { return w.Value == e.Value && w.Value != "" })
	switch {
	case i < 0:
		c.say(e, "nobody wrote this value")
		return
	case list[i].Out == "failed" || list[i].Out == "miss":
		c.say(e, "the write of this value had no effect")
		return
	case list[i].Start > e.End:
		c.say(e, "this value was written later")
		return
	}
	allowed := bound + slack
	if owner, _, _ := strings.Cut(e.Key, ":"); owner == e.Worker {
		allowed = 0
	}
	if list[i].Out == "unknown" && e.Start < list[i].End+bound+slack {
		return // it may have taken effect behind later ones
	}
	for _, later := range list[i+1:] {
		if later.Out == "ok" && later.End < e.Start-allowed {
			c.say(e, fmt.Sprintf("overwritten %.1f s before, by %q", e.Start-later.End, later.Value))
			return
		}
	}
}

// counter checks that no result came twice: else an increment is lost. A counter that was
// lost and began again shows nothing.
func (c *checker) counter(list []event) {
	begun := 0
	for _, e := range list {
		if e.Op == "begin" && (e.Out == "ok" || e.Out == "unknown") {
			begun++
		}
	}
	if begun > 1 {
		return
	}
	by, last := map[int]string{}, map[string]int{}
	for _, e := range list {
		if e.Op != "count" || e.Out != "ok" {
			continue
		}
		if other, twice := by[e.Seq]; twice {
			c.say(e, "an increment is lost: the same result as of "+other)
		} else if e.Seq <= last[e.Worker] {
			c.say(e, "the counter goes back")
		}
		by[e.Seq], last[e.Worker] = e.Worker, e.Seq
	}
}

// TestChecker plants answers that are wrong, and ones that look so.
func TestChecker(t *testing.T) {
	write := func(at float64, value, out string) event {
		return event{Worker: "a", Op: "write", Key: "a:k", Value: value, Start: at, End: at + 0.1, Out: out}
	}
	read := func(worker string, at float64, value string) event {
		return event{Worker: worker, Op: "read", Key: "a:k", Value: value, Start: at, End: at + 0.1, Out: "ok"}
	}
	count := func(worker string, at float64, op string, result int, out string) event {
		return event{Worker: worker, Op: op, Key: "shared", Seq: result, Start: at, End: at + 0.1, Out: out}
	}
	two := []event{write(0, "one", "ok"), write(1, "two", "ok")}
	with := func(more ...event) []event { return slices.Concat(two, more) }
	restart := []window{{10, 20}}
	for _, test := range []struct {
		name   string
		events []event
		wrong  bool
	}{
		{"the last value", with(read("a", 2, "two")), false},
		{"a miss", with(event{Worker: "a", Op: "read", Key: "a:k", Start: 2, End: 2, Out: "miss"}), false},
		{"stale for its owner", with(read("a", 2, "one")), true},
		{"stale for another, within the bound", with(read("b", 2, "one")), false},
		{"stale for another, beyond it", with(read("b", 4, "one")), true},
		{"foreign", with(read("b", 2, "three")), true},
		{"from the future", []event{write(3, "one", "ok"), read("b", 1, "one")}, true},
		{"without effect", with(write(3, "three", "failed"), read("b", 4, "three")), true},
		{"unknown, with effect", with(write(11, "three", "unknown"), read("a", 12, "three")), false},
		{"unknown, without effect", with(write(11, "three", "unknown"), read("a", 12, "two")), false},
		{"unknown, late", with(write(11, "x", "unknown"), write(11.5, "y", "ok"), read("a", 12, "x")), false},
		{"unknown, too late", with(write(11, "x", "unknown"), write(11.5, "y", "ok"), read("a", 19, "x")), true},
		{"back from the dead", with(write(2, "", "ok"), read("a", 3, "two")), true},
		{"an error without a restart", with(write(5, "three", "unknown")), true},
		{"increments", []event{count("a", 0, "begin", 0, "ok"), count("a", 1, "count", 1, "ok"),
			count("b", 2, "count", 2, "ok")}, false},
		{"an increment lost", []event{count("a", 0, "begin", 0, "ok"), count("a", 1, "count", 1, "ok"),
			count("b", 2, "count", 1, "ok")}, true},
		{"back", []event{count("a", 1, "count", 2, "ok"), count("a", 2, "count", 1, "ok")}, true},
		{"begun again", []event{count("a", 0, "begin", 0, "ok"), count("a", 1, "count", 1, "ok"),
			count("a", 2, "begin", 0, "ok"), count("a", 3, "count", 1, "ok")}, false},
	} {
		if got := check(test.events, restart); (len(got) > 0) != test.wrong {
			t.Errorf("%s: %q, want wrong %v", test.name, got, test.wrong)
		}
	}
}
