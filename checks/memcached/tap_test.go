package memcached

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// outcome is what a file of the suite has printed: Perl's TAP.
type outcome struct {
	plan    int // how many subtests it announces; -1 if it announces none
	ran     int
	failed  []int
	names   map[int]string // of those that failed
	skipped string         // why the file has skipped itself
	died    string         // how the program has ended, unless in order
}

var (
	tapResult = regexp.MustCompile(`^(not )?ok\b(?: (\d+))?(?: - )?([^#]*)(# (?i:skip|todo)\b)?`)
	tapPlan   = regexp.MustCompile(`^1\.\.(\d+)(?:\s+# (?i:skip)\S*\s*(.*))?`)
)

// parseTAP reads what a file has printed.
func parseTAP(text string) outcome {
	o := outcome{plan: -1, names: map[int]string{}}
	for line := range strings.Lines(text) {
		if m := tapPlan.FindStringSubmatch(line); m != nil {
			o.plan, _ = strconv.Atoi(m[1])
			o.skipped = strings.TrimSpace(m[2])
			continue
		}
		m := tapResult.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		o.ran++
		if n, err := strconv.Atoi(m[2]); err == nil && n != o.ran {
			o.died = fmt.Sprintf("the subtest behind %d is %d", o.ran-1, n)
		}
		if m[1] != "" && m[4] == "" {
			o.failed = append(o.failed, o.ran)
			o.names[o.ran] = strings.TrimSpace(m[3])
		}
	}
	return o
}

// differences compares what a file has done with what it must do.
func (o outcome) differences(v verdict) (list []string) {
	say := func(format string, a ...any) { list = append(list, fmt.Sprintf(format, a...)) }
	if o.skipped != "" {
		say("the file has skipped itself: %s", o.skipped)
	}
	if o.plan < 0 || o.ran != o.plan {
		say("%d subtests ran of %d, %s", o.ran, o.plan, o.died)
	} else if o.died != "" {
		say("%s", o.died)
	}
	for _, n := range o.failed {
		if _, excused := v.fails[n]; !excused {
			say("subtest %d fails: %s", n, o.names[n])
		}
	}
	for n, reason := range v.fails {
		if !v.may[n] && !slices.Contains(o.failed, n) {
			say("subtest %d passes, and the table says that it cannot apply: %s", n, reason)
		}
	}
	slices.Sort(list)
	return list
}

// TestTAP checks that each way to differ from the table is seen.
func TestTAP(t *testing.T) {
	excused := verdict{fails: map[int]string{2: "why"}}
	for _, test := range []struct {
		name, text string
		must       verdict
		want       int
	}{
		{"passes", "1..2\nok 1 - a\nlen is 3\nok 2 - b # c\n", verdict{}, 0},
		{"plan behind", "ok 1\nok 2\n1..2\n", verdict{}, 0},
		{"fails", "1..2\nok 1 - a\nnot ok 2 - b\n", verdict{}, 1},
		{"fails as it may", "1..2\nok 1 - a\nnot ok 2 - b\n", excused, 0},
		{"passes although it cannot", "1..2\nok 1\nok 2\n", excused, 1},
		{"passes although it may fail", "1..2\nok 1\nok 2\n",
			verdict{fails: map[int]string{2: "why"}, may: map[int]bool{2: true}}, 0},
		{"ends early", "1..3\nok 1\nok 2\n", verdict{}, 1},
		{"no plan", "ok 1\nok 2\n", verdict{}, 1},
		{"a gap", "1..2\nok 1\nok 3\n", verdict{}, 1},
		{"skipped", "1..0 # SKIP not enabled\n", verdict{}, 1},
		{"one skipped", "1..2\nok 1 # skip why\nnot ok 2 # TODO later\n", verdict{}, 0},
		{"nothing", "", verdict{}, 1},
	} {
		if got := parseTAP(test.text).differences(test.must); len(got) != test.want {
			t.Errorf("%s: %q, want %d", test.name, got, test.want)
		}
	}
}
