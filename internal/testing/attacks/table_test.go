package attacks

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
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

// render returns the list of the defences and the table, which names them by their numbers. An attack
// that was measured with two attackers has one row, with the worse figure of both. One that hardly has an
// effect has no row: its defence names it.
func render(results []*result) string {
	var b strings.Builder
	var defences []string
	harmless, rows := map[string][]string{}, ""
	for len(results) > 0 {
		r := *results[0]
		results = results[1:]
		for len(results) > 0 && results[0].name == r.name {
			r.worsen(results[0])
			results = results[1:]
		}
		if !slices.Contains(defences, r.bound) {
			defences = append(defences, r.bound)
		}
		if r.harmless() {
			harmless[r.bound] = append(harmless[r.bound], r.name)
			continue
		}
		rows += fmt.Sprintf("| %s | %s | %d | %s | %s |\n",
			r.name, r.tries, 1+slices.Index(defences, r.bound), r.latency(), r.footprint())
	}
	for i, d := range defences {
		fmt.Fprintf(&b, "%d. %s", i+1, d)
		if names := harmless[d]; len(names) > 0 {
			fmt.Fprintf(&b, " (*%s*)", strings.Join(names, "*, *"))
		}
		b.WriteString("\n")
	}
	return b.String() + "\n| attack | what it tries | defence | p99 | memory |\n|---|---|--:|---|---|\n" + rows
}

// harmless reports whether the victim hardly noticed: its p99s are at most half of the limit,
// half of the memory was enough, and no limit is broken.
func (r *result) harmless() bool {
	return max(r.small, r.large) <= mostRatio/2 && 2*r.peak <= r.limit && r.back <= mostBack &&
		r.wrong+r.missing == 0 && r.killedAt == 0 && !r.gone
}

// worsen takes the worse figures of another run of the same attack.
func (r *result) worsen(by *result) {
	r.small, r.large, r.back = max(r.small, by.small), max(r.large, by.large), max(r.back, by.back)
	r.wrong, r.missing = r.wrong+by.wrong, r.missing+by.missing
	r.peak, r.limit, r.killedAt = max(r.peak, by.peak), max(r.limit, by.limit), max(r.killedAt, by.killedAt)
	r.gone = r.gone || by.gone
}

// latency returns the ratios of the p99s, and the wrong and missing answers, if there were any.
func (r *result) latency() string {
	var list []string
	add := func(is bool, format string, args ...any) {
		if is {
			list = append(list, fmt.Sprintf(format, args...))
		}
	}
	add(r.small > 0, "%s", times(r.small))
	add(r.large > 0, "large %s", times(r.large))
	add(r.wrong > 0, "%d wrong", r.wrong)
	add(r.missing > 0, "%d missing", r.missing)
	return strings.Join(list, ", ")
}

// times returns a ratio, in bold if it is above the limit.
func times(ratio float64) string {
	if ratio > mostRatio {
		return fmt.Sprintf("**× %.1f**", ratio)
	}
	return fmt.Sprintf("× %.1f", ratio)
}

// footprint returns the peak of memory as a share of what is stated, and the memory afterwards if that is
// above the limit.
func (r *result) footprint() string {
	switch {
	case r.killedAt > 0:
		return fmt.Sprintf("killed at %d MiB", r.killedAt>>20)
	case r.gone:
		return "gone"
	case r.limit == 0:
		return ""
	case r.back > mostBack:
		return fmt.Sprintf("%d %%, after × %.2f", 100*r.peak/r.limit, r.back)
	}
	return fmt.Sprintf("%d %%", 100*r.peak/r.limit)
}

func TestTable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	testenv.Must(t, os.WriteFile(path, []byte("before\n"+tableBegins+"old\n"+tableEnds+"after\n"), 0o600))
	named := func(name string) attack { return attack{name: name, tries: "t", bound: "b"} }
	a, dead, gone, well, other, last := named("n"), named("dead"), named("gone"), named("well"), named("o"), named("p")
	results := []*result{
		{attack: &a, small: 1.25, large: 2, peak: 6 << 20, limit: 9 << 20, back: 1.2},
		{attack: &a, small: 9, wrong: 1, missing: 2, peak: 5 << 20, limit: 9 << 20, back: 0.1},
		{attack: &dead, small: 1, peak: 3 << 30, limit: 9 << 20, killedAt: 2100 << 20, gone: true},
		{attack: &gone, small: 1, peak: 6 << 20, limit: 9 << 20, gone: true},
		{attack: &well, small: 1, large: 3.5, peak: 6 << 20, limit: 9 << 20, back: 1},
		{attack: &other, small: 1.5, peak: 4 << 20, limit: 9 << 20},
		{attack: &last},
	}
	want := `before
<!-- written by make attacks -->
1. b (*o*, *p*)

| attack | what it tries | defence | p99 | memory |
|---|---|--:|---|---|
| n | t | 1 | **× 9.0**, large × 2.0, 1 wrong, 2 missing | 66 %, after × 1.20 |
| dead | t | 1 | × 1.0 | killed at 2100 MiB |
| gone | t | 1 | × 1.0 | gone |
| well | t | 1 | × 1.0, large **× 3.5** | 66 % |
<!-- end -->
after
`
	for range 2 { // it can be rewritten
		testenv.Must(t, rewrite(path, results))
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
