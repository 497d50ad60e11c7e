// Package table sets texts and numbers in columns, for people who read them on a terminal.
//
// Input is rows of cells, of which the first has the heads; output is lines, in which every character is one
// that a terminal shows. The package also writes numbers and sizes as the columns have them. It starts no goroutine,
// writes nothing itself, and does not know what the columns mean.
package table

import (
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/rivo/uniseg"

	"github.com/cachesidecar/cachesidecar/internal/logs"
)

// Rows has rows of cells, of which the first has the heads.
type Rows [][]any

// AddRow adds a row. A row may end early.
func (t *Rows) AddRow(cells ...any) { *t = append(*t, cells) }

// RightAligned is a text that stands in a column as numbers do.
type RightAligned string

// Lines aligns the cells: texts to the left, all others to the right, whole numbers with commas. A text that ends a
// row early is as long as it is. All texts are fit for a terminal.
func (t Rows) Lines() (lines []string) {
	var widths []int
	var right []bool
	early := func(row []any, j int) bool { return j == len(row)-1 && len(row) < len(t[0]) }
	texts := make([][]string, len(t))
	for i, row := range t {
		for j, cell := range row {
			texts[i] = append(texts[i], logs.Plain(fmt.Sprint(WithCommas(cell))))
			if j == len(widths) {
				widths, right = append(widths, 0), append(right, false)
			}
			if _, isText := cell.(string); !early(row, j) {
				widths[j], right[j] = max(widths[j], uniseg.StringWidth(texts[i][j])), right[j] || !isText
			}
		}
	}
	for i, row := range t {
		line := ""
		for j, text := range texts[i] {
			blanks := strings.Repeat(" ", max(widths[j]-uniseg.StringWidth(text), 0))
			if right[j] && !early(row, j) {
				text, blanks = blanks+text, ""
			}
			line += text + blanks + "  "
		}
		lines = append(lines, strings.TrimRight(line, " "))
	}
	return lines
}

func (t Rows) String() string {
	text := ""
	for _, line := range t.Lines() {
		text += line + "\n"
	}
	return text
}

// WithCommas returns whole numbers as they are read best, and other values as they are.
func WithCommas(v any) any {
	switch n := v.(type) {
	case int:
		return Count(n)
	case int64:
		return Count(n)
	case uint32:
		return Count(n)
	}
	return v
}

func Count[T int | int64 | uint32](n T) RightAligned { return RightAligned(humanize.Comma(int64(n))) }
func Size(n int64) RightAligned                      { return RightAligned(humanize.IBytes(uint64(max(n, 0)))) }

func Percent(part, whole int64) RightAligned {
	if whole == 0 {
		return "-"
	}
	return RightAligned(fmt.Sprintf("%.1f %%", 100*float64(part)/float64(whole)))
}
