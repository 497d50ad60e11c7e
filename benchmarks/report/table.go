package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"
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
	return b.String() + "\n"
}

// thousands formats a whole number with commas.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return minus(s)
}

// rate formats requests a second.
func rate(v float64) string { return thousands(int64(math.Round(v))) }

// mib formats bytes in MiB.
func mib(n float64) string { return fmt.Sprintf("%.1f MiB", n/(1<<20)) }

// minus replaces hyphens by the minus sign of print.
func minus(s string) string { return strings.ReplaceAll(s, "-", "−") }
