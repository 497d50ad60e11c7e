package report

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// table is a Markdown table.
type table struct {
	head []string
	left int // the first columns are text, the others numbers
	rows [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) String() string {
	var b strings.Builder
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	line(t.head)
	rule := make([]string, len(t.head))
	for i := range rule {
		if rule[i] = "---"; i >= t.left {
			rule[i] = "--:"
		}
	}
	line(rule)
	for _, r := range t.rows {
		line(r)
	}
	return b.String()
}

// functions are what page.md can call.
func (s *section) functions() template.FuncMap {
	load := []string{"requests/s||n", "requests/s|min|n|min", "requests/s|max|n|max", "p50 µs", "p99 µs", "p99.9 µs"}
	return template.FuncMap{
		"table":  s.table,
		"load":   func(head, shapes string) (string, error) { return s.table(head, shapes, load...) },
		"wide":   s.wide,
		"rounds": s.roundsTable,
		"figure": s.figure,
		"plot":   s.plot,
		"plots":  func() []string { return slices.Sorted(maps.Keys(s.plots)) },
		"mib":    func(n int64) string { return print("%.1f", float64(n)/(1<<20)) },
		"n":      record.Commas[int],
		"times":  func(a, b int) int { return a * b },
		"per":    func(a int, b float64) string { return strconv.FormatFloat(float64(a)/b, 'f', -1, 64) },
		"has":    s.has,
	}
}

// column is a column of a table, or a part of a cell.
type column struct{ figure, stat, format, head string }

// columnOf parses a column: figure|statistic|format|head. The statistic is the median if it is empty; the head is
// the figure.
func columnOf(text string) column {
	p := append(strings.Split(text, "|"), "", "", "")
	return column{p[0], p[1], cmp.Or(p[2], "%.0f"), cmp.Or(p[3], p[0])}
}

// columnsOf parses columns, and returns their heads too.
func columnsOf(texts []string) (columns []column, heads []string) {
	for _, text := range texts {
		c := columnOf(text)
		columns, heads = append(columns, c), append(heads, c.head)
	}
	return columns, heads
}

// cell prints the values of all rounds.
func (c column) cell(values []float64) string {
	if len(values) == 0 {
		return "–"
	}
	s := spreadOf(values)
	switch c.stat {
	case "min":
		return print(c.format, s.least)
	case "max":
		return print(c.format, s.most)
	case "last":
		return print(c.format, values[len(values)-1])
	case "rounds":
		return print(c.format, float64(len(values)))
	case "sum":
		sum := 0.0
		for _, v := range values {
			sum += v
		}
		return print(c.format, sum)
	case "range":
		if s.least != s.most {
			return fmt.Sprintf("%s (%s to %s)", print(c.format, s.median), print(c.format, s.least), print(c.format, s.most))
		}
	}
	return print(c.format, s.median)
}

// print formats a number: as fmt does; n with what follows it, with commas; or the name of a status.
func print(format string, v float64) string {
	unit, commas := strings.CutPrefix(format, "n")
	switch {
	case format == "status" && v == 0:
		return "–"
	case format == "status":
		return wire.Status(v).String()
	case !commas:
		return minus(fmt.Sprintf(format, v))
	}
	return minus(record.Commas(v)) + unit
}

// minus replaces hyphens by the minus sign of print.
func minus(s string) string { return strings.ReplaceAll(s, "-", "−") }

// exactly is a regular expression for whole names.
func exactly(expression string) *regexp.Regexp { return regexp.MustCompile("^(?:" + expression + ")$") }

// shapes returns the shapes that an expression matches, in the order of the rows.
func (s *section) shapes(expression string) []string { return shapesOf(s.Rows, exactly(expression)) }

func shapesOf(rows record.Rows, match *regexp.Regexp) (list []string) {
	for _, r := range rows {
		if match.MatchString(r.Shape) && (len(list) == 0 || list[len(list)-1] != r.Shape) && !slices.Contains(list, r.Shape) {
			list = append(list, r.Shape)
		}
	}
	return list
}

// sides returns the sides that have some of the columns' figures under a load.
func (s *section) sides(shape string, columns []column) (list []string) {
	for _, r := range s.Rows {
		if r.Shape == shape && !slices.Contains(list, r.Side) && slices.ContainsFunc(columns, func(c column) bool { return c.figure == r.Figure }) {
			list = append(list, r.Side)
		}
	}
	return list
}

// table returns a table with a line for each side under each load, and a column for each figure. heads are those of
// the loads and of the sides; a column without a head is left out.
func (s *section) table(heads, shapes string, figures ...string) (string, error) {
	load, side, _ := strings.Cut(heads, "|")
	columns, names := columnsOf(figures)
	var t table
	labels := func(load, side string, of func(string) string) (list []string) {
		if load != "" {
			list = append(list, of(load))
		}
		if side != "" {
			list = append(list, of(side))
		}
		return list
	}
	t.head = labels(load, side, func(head string) string { return head })
	t.left = len(t.head)
	t.head = append(t.head, names...)
	for _, shape := range s.shapes(shapes) {
		for _, name := range s.sides(shape, columns) {
			cells := labels(load, side, func(head string) string {
				if head == load {
					return shape
				}
				return name
			})
			for _, c := range columns {
				cells = append(cells, c.cell(s.Rows.Of(shape, name, c.figure)))
			}
			t.add(cells...)
		}
	}
	return s.printed(t, shapes)
}

// has reports whether there is a load, or some of the figures under it.
func (s *section) has(shapes string, figures ...string) bool {
	columns, _ := columnsOf(figures)
	return slices.ContainsFunc(s.shapes(shapes), func(shape string) bool { return len(figures) == 0 || len(s.sides(shape, columns)) > 0 })
}

// printed returns a table, or an error if it is empty.
func (s *section) printed(t table, shapes string) (string, error) {
	if len(t.rows) == 0 {
		return "", fmt.Errorf("there are no rounds of %q: measure them again with \"go run ./cmd/bench %s\"", shapes, s.What)
	}
	return t.String(), nil
}

// wide returns a table with a line for each load, and a column for each side. A cell has the figures, divided by
// commas.
func (s *section) wide(head, shapes, figures string, sides ...string) (string, error) {
	t := table{head: append([]string{head}, sides...), left: 1}
	columns, _ := columnsOf(strings.Split(figures, ";"))
	for _, shape := range s.shapes(shapes) {
		cells := []string{shape}
		for _, side := range sides {
			var parts []string
			for _, c := range columns {
				parts = append(parts, c.cell(s.Rows.Of(shape, side, c.figure)))
			}
			cells = append(cells, strings.Join(parts, ", "))
		}
		if len(s.sides(shape, columns)) > 0 {
			t.add(cells...)
		}
	}
	return s.printed(t, shapes)
}

// roundsTable returns a table with a line for each round of a load.
func (s *section) roundsTable(head, shapes string, figures ...string) (string, error) {
	columns, names := columnsOf(figures)
	t := table{head: append([]string{head}, names...), left: 1}
	for _, shape := range s.shapes(shapes) {
		for round := range s.Rows.Of(shape, "", columns[0].figure) {
			cells := []string{strconv.Itoa(round + 1)}
			for _, c := range columns {
				v := s.Rows.Of(shape, "", c.figure)
				cells = append(cells, c.cell(v[min(round, len(v)):min(round+1, len(v))]))
			}
			t.add(cells...)
		}
	}
	return s.printed(t, shapes)
}

// figure returns one figure, over all loads and sides that match.
func (s *section) figure(shapes, sides, text string) string {
	c, shape, side := columnOf(text), exactly(shapes), exactly(sides)
	var all []float64
	for _, r := range s.Rows {
		if r.Figure == c.figure && shape.MatchString(r.Shape) && side.MatchString(r.Side) {
			all = append(all, r.Values...)
		}
	}
	return c.cell(all)
}

// plot embeds a plot, if there is one.
func (s *section) plot(name string) string {
	if c, ok := s.plots[name]; ok {
		return fmt.Sprintf("![%s](%s)", c.Title, plotPath(name))
	}
	return ""
}
