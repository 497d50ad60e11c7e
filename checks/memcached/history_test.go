package memcached

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/history"
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

// late is how long after its begin a call without an answer may still take effect.
const late = 5 * time.Second

// check returns what the events do not explain. Misses need no explanation.
func check(events []event, excused []window) (found []string) {
	for _, e := range events {
		if e.Out == "unknown" && !within(e, excused) {
			found = append(found, fmt.Sprintf("%s: an error, though no host restarts, and the machine runs: %+v", e.Key, e))
		}
	}
	// A counter that was lost misses until it begins again.
	rules := history.Rules{Bound: seconds(bound + slack), Late: late, Lossless: true}
	return append(found, history.Lines(history.Check(rules, plain(events)))...)
}

func within(e event, list []window) bool {
	return slices.ContainsFunc(list, func(w window) bool { return e.Start <= w.end && e.End >= w.start })
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// plain returns events as package history has them. A worker sees its own writes at once. Each
// value of a key gets a number.
func plain(events []event) (ops []history.Op) {
	var first float64
	for i, e := range events {
		if i == 0 || e.Start < first {
			first = e.Start
		}
	}
	numbers := map[[2]string]int64{}
	for _, e := range events {
		o := history.Op{
			Key: e.Key, Host: e.Worker, Began: seconds(e.Start - first), Ended: seconds(e.End - first), Note: e.Value,
			Outcome: map[string]history.Outcome{"ok": history.Done, "unknown": history.Unknown}[e.Out],
		}
		if e.Out == "miss" || e.Out == "failed" {
			o.Outcome = history.NotStored
		}
		value := [2]string{e.Key, e.Value}
		if numbers[value] == 0 {
			numbers[value] = int64(len(numbers) + 1)
		}
		o.Number = numbers[value]
		switch {
		case e.Op == "write" && e.Value == "":
			o.Kind = history.Delete
		case e.Op == "write":
			o.Kind = history.Set
		case e.Op == "begin": // at zero
			o.Kind = history.Delete
		case e.Op == "count":
			o.Kind, o.Number = history.Incr, int64(e.Seq)
		case e.Op != "read":
			continue
		}
		ops = append(ops, o)
	}
	return ops
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
		{"unknown, late, and there since", with(write(11, "x", "unknown"), write(11.5, "y", "ok"), read("a", 19, "x")), false},
		{"unknown, too late", with(write(11, "x", "unknown"), write(16.5, "y", "ok"), read("a", 19, "x")), true},
		{"unknown, and back", with(write(11, "x", "unknown"), read("b", 12, "x"), write(13, "y", "ok"), read("a", 19, "x")), true},
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
