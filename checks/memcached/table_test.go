package memcached

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// tablePath is the table of the suite's files; its head says how it is written.
const tablePath = "testdata/suite.txt"

// verdict is what a file of the suite must do on a target.
type verdict struct {
	apart string         // why the file cannot apply; "" if it is run
	fails map[int]string // the subtests that cannot apply, and why
	may   map[int]bool   // those that pass at times
	rows  []row          // as they are in the table
}

// row is one line of the table: subtests and the reason why they cannot apply.
type row struct{ subtests, reason string }

// table is what each file must do on each target.
type table map[string]map[string]verdict

// readTable reads the table.
func readTable(t testing.TB) table {
	t.Helper()
	f, err := os.Open(tablePath)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tab := table{}
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		if err := tab.add(text); err != nil {
			t.Fatalf("%s:%d: %v", tablePath, n, err)
		}
	}
	for file, on := range tab {
		if len(on) != 2 {
			t.Errorf("%s has %s for one of memcached and sidecars: want both", tablePath, file)
		}
	}
	return tab
}

// add adds a line: file | target | verdict.
func (tab table) add(text string) error {
	parts := strings.SplitN(text, "|", 3)
	if len(parts) != 3 {
		return fmt.Errorf("%q: want file | target | verdict", text)
	}
	file, target, says := strings.TrimSpace(parts[0]), strings.TrimSpace(parts[1]), strings.TrimSpace(parts[2])
	targets := []string{target}
	if target == "both" {
		targets = []string{"memcached", "sidecars"}
	} else if target != "memcached" && target != "sidecars" {
		return fmt.Errorf("the target %q: want memcached, sidecars or both", target)
	}
	if tab[file] == nil {
		tab[file] = map[string]verdict{}
	}
	what, reason, _ := strings.Cut(says, ": ")
	subtests, inPart := strings.CutPrefix(what, "fails ")
	atTimes := false
	if !inPart {
		subtests, inPart = strings.CutPrefix(what, "may fail ")
		atTimes = inPart
	}
	for _, on := range targets {
		v, again := tab[file][on]
		switch {
		case inPart && reason != "" && v.apart == "":
			if v.fails == nil {
				v.fails, v.may = map[int]string{}, map[int]bool{}
			}
			if err := v.excuse(subtests, reason, atTimes); err != nil {
				return err
			}
		case what == "cannot apply" && reason != "" && !again:
			v.apart = reason
		case says != "passes" || again:
			return fmt.Errorf("the verdict %q: want one passes, one cannot apply: REASON, or fails NUMBERS: REASON", says)
		}
		tab[file][on] = v
	}
	return nil
}

// excuse adds subtests, as in "3, 7-9".
func (v *verdict) excuse(subtests, reason string, atTimes bool) error {
	if v.rows = append(v.rows, row{subtests, reason}); atTimes {
		v.rows[len(v.rows)-1].subtests = "at times " + subtests
	}
	for part := range strings.SplitSeq(subtests, ",") {
		low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			high = low
		}
		from, err := strconv.Atoi(low)
		to, err2 := strconv.Atoi(high)
		if err != nil || err2 != nil || from < 1 || to < from {
			return fmt.Errorf("the subtests %q: want numbers and ranges, as in 3, 7-9", subtests)
		}
		for n := from; n <= to; n++ {
			if _, twice := v.fails[n]; twice {
				return fmt.Errorf("the subtest %d is listed twice", n)
			}
			v.fails[n], v.may[n] = reason, atTimes
		}
	}
	return nil
}

// numbers writes subtests as the table does.
func numbers(list []int) string {
	slices.Sort(list)
	var parts []string
	for i := 0; i < len(list); {
		j := i
		for j+1 < len(list) && list[j+1] == list[j]+1 {
			j++
		}
		if part := strconv.Itoa(list[i]); j > i {
			parts = append(parts, part+"-"+strconv.Itoa(list[j]))
		} else {
			parts = append(parts, part)
		}
		i = j + 1
	}
	return strings.Join(parts, ", ")
}

// TestTable checks that the table refuses lines that say nothing.
func TestTable(t *testing.T) {
	for _, bad := range []string{
		"a.t", "a.t | both", "a.t | redis | passes", "a.t | both | well", "a.t | both | cannot apply",
		"a.t | both | fails 3", "a.t | both | fails x: y", "a.t | both | fails 4-3: y", "a.t | both | fails 3, 1-4: y",
	} {
		if (table{}).add(bad) == nil {
			t.Errorf("the table takes %q", bad)
		}
	}
	tab := table{}
	for _, line := range []string{
		"a.t | both | passes", "b.t | sidecars | fails 3, 7-9: why", "b.t | sidecars | fails 1: so",
	} {
		if err := tab.add(line); err != nil {
			t.Error(err)
		}
	}
	if got := len(tab["b.t"]["sidecars"].fails); got != 5 {
		t.Errorf("%d subtests are excused, want 5", got)
	}
	if tab.add("a.t | memcached | passes") == nil {
		t.Error("the table takes a file twice")
	}
	if got := numbers([]int{9, 3, 7, 8}); got != "3, 7-9" {
		t.Errorf("numbers: %q", got)
	}
}
