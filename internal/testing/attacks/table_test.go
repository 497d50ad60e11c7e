package attacks

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The marks around the table in the page.
const (
	tableBegins = "<!-- written by make attacks -->\n"
	tableEnds   = "<!-- end -->\n"
)

// rewrite replaces a page's table.
func rewrite(path string, results []*result) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(page), tableBegins)
	_, after, ok2 := strings.Cut(rest, tableEnds)
	if !ok || !ok2 {
		return fmt.Errorf("%s: the table's place is not marked by %q and %q", path, tableBegins, tableEnds)
	}
	return os.WriteFile(path, []byte(before+tableBegins+render(results)+tableEnds+after), 0o644)
}

// render returns the list of the defences and the table, which names them by their numbers. An
// attack by a second attacker does not tell again what it tries.
func render(results []*result) string {
	var b strings.Builder
	var defences []string
	for _, r := range results {
		if !slices.Contains(defences, r.bound) {
			defences = append(defences, r.bound)
			fmt.Fprintf(&b, "%d. %s\n", len(defences), r.bound)
		}
	}
	b.WriteString("\n| attack | what it tries | defence | attacker | p99 | wrong, missing | memory, of what is stated | after |\n" +
		"|---|---|---|---|---|---|---|---|\n")
	last := ""
	for _, r := range results {
		told := "| | |"
		if r.name != last {
			told = fmt.Sprintf("| %s | %s | %d", r.name, r.tries, 1+slices.Index(defences, r.bound))
		}
		last = r.name
		p99, memory, back := "", "", ""
		if r.small > 0 {
			p99 = fmt.Sprintf("× %.1f", r.small)
		}
		if r.large > 0 {
			p99 += fmt.Sprintf(", large × %.1f", r.large)
		}
		if r.back > 0 {
			memory, back = fmt.Sprintf("%d of %d MiB", r.peak>>20, r.limit>>20), fmt.Sprintf("× %.2f", r.back)
		}
		if r.killedAt > 0 {
			memory = fmt.Sprintf("killed at %d MiB", r.killedAt>>20)
		}
		if r.gone {
			back = "gone"
		}
		fmt.Fprintf(&b, "%s | %s | %s | %d, %d | %s | %s |\n", told, r.user, p99, r.wrong, r.missing, memory, back)
	}
	return b.String()
}

func TestTable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(path, []byte("before\n"+tableBegins+"old\n"+tableEnds+"after\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, other := attack{name: "n", tries: "t", bound: "b"}, attack{name: "o", tries: "t", bound: "b"}
	results := []*result{
		{attack: &a, user: "another", small: 1.25, large: 2, peak: 5 << 20, limit: 9 << 20, back: 1.02},
		{attack: &a, user: "the same", small: 9, wrong: 1, missing: 2, peak: 3 << 30, limit: 9 << 20, back: 0.1, killedAt: 2100 << 20, gone: true},
		{attack: &other},
	}
	want := `before
<!-- written by make attacks -->
1. b

| attack | what it tries | defence | attacker | p99 | wrong, missing | memory, of what is stated | after |
|---|---|---|---|---|---|---|---|
| n | t | 1 | another | × 1.2, large × 2.0 | 0, 0 | 5 of 9 MiB | × 1.02 |
| | | | the same | × 9.0 | 1, 2 | killed at 2100 MiB | gone |
| o | t | 1 |  |  | 0, 0 |  |  |
<!-- end -->
after
`
	for range 2 { // it can be rewritten
		if err := rewrite(path, results); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(path); string(got) != want {
			t.Fatalf("got\n%swant\n%s", got, want)
		}
	}
	if err := rewrite("doc.go", results); err == nil {
		t.Error("a page without the marks was written")
	}
}

func TestFaults(t *testing.T) {
	good := result{timed: true, small: 3, large: 3, peak: 9, limit: 9, back: 1.1}
	if bad := good.faults(); len(bad) > 0 {
		t.Errorf("at the limits: %q", bad)
	}
	for name, breaks := range map[string]func(*result){
		"p99":     func(r *result) { r.small = 3.1 },
		"large":   func(r *result) { r.large = 3.1 },
		"wrong":   func(r *result) { r.wrong = 1 },
		"missing": func(r *result) { r.missing = 1 },
		"peak":    func(r *result) { r.peak = 10 },
		"after":   func(r *result) { r.back = 1.11 },
		"killed":  func(r *result) { r.killedAt = 1 },
		"gone":    func(r *result) { r.gone = true },
		"learned": func(r *result) { r.learned = []string{"x"} },
		"shown":   func(r *result) { r.shown = os.ErrNotExist },
	} {
		r := good
		breaks(&r)
		if bad := r.faults(); len(bad) != 1 {
			t.Errorf("%s: %q, want one fault", name, bad)
		}
	}
}

func TestQuantile(t *testing.T) {
	var all []time.Duration
	for i := range 100 {
		all = append(all, time.Duration(100-i)) // 100 … 1
	}
	for _, c := range []struct {
		of   []time.Duration
		q    float64
		want time.Duration
	}{{nil, 0.99, 0}, {all[:1], 0.99, 100}, {all, 0, 1}, {all, 0.5, 51}, {all, 0.99, 100}, {all, 0.98, 99}, {all, 1, 100}} {
		if got := quantile(c.of, c.q); got != c.want {
			t.Errorf("quantile %v of %d: got %d, want %d", c.q, len(c.of), got, c.want)
		}
	}
	if got := ratio([]time.Duration{6}, []time.Duration{2}); got != 3 {
		t.Errorf("ratio: got %v, want 3", got)
	}
	if got := ratio([]time.Duration{6}, nil); got != 0 {
		t.Errorf("ratio to nothing: got %v, want 0", got)
	}
}

func TestTally(t *testing.T) {
	a := tally{small: []time.Duration{1}, wrong: 1}
	a.add(&tally{small: []time.Duration{2}, large: []time.Duration{3}, wrong: 1, missing: 2, why: map[string]int{"x": 2}})
	if len(a.small) != 2 || len(a.large) != 1 || a.wrong != 2 || a.missing != 2 || a.why["x"] != 2 {
		t.Errorf("got %+v", a)
	}
}
