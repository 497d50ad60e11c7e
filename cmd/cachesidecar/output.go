package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/rivo/uniseg"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/cachesidecar/cachesidecar/internal/logs"
)

// show prints a command's result: one document with --json, else text.
func (p *program) show(c *cli.Context, document any, text string) error {
	if c.Bool("json") {
		return writeJSON(p.out, document, "  ")
	}
	_, err := io.WriteString(p.out, text)
	return err
}

// writeJSON writes a JSON document in which a terminal shows every character.
func writeJSON(out io.Writer, v any, indent string) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetIndent("", indent)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := out.Write(logs.JSON(text.Bytes()))
	return err
}

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// table has rows of cells, of which the first has the heads.
type table [][]any

func (t *table) row(cells ...any) { *t = append(*t, cells) }

// rightAligned is a text that stands in a column as numbers do.
type rightAligned string

// lines aligns the cells: texts to the left, all others to the right, whole numbers with commas. A text that ends a
// row early is as long as it is. All texts are fit for a terminal.
func (t table) lines() (lines []string) {
	var widths []int
	var right []bool
	early := func(row []any, j int) bool { return j == len(row)-1 && len(row) < len(t[0]) }
	texts := make([][]string, len(t))
	for i, row := range t {
		for j, cell := range row {
			texts[i] = append(texts[i], logs.Plain(fmt.Sprint(withCommas(cell))))
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

func (t table) String() string {
	text := ""
	for _, line := range t.lines() {
		text += line + "\n"
	}
	return text
}

// sanitizedf is fmt.Sprintf whose texts are fit for a terminal. Names of hosts, and what is wrong with them, come
// from other hosts, which may not be trusted.
func sanitizedf(format string, args ...any) string {
	for i, a := range args {
		if text, ok := a.(string); ok {
			args[i] = logs.Plain(text)
		}
	}
	return fmt.Sprintf(format, args...)
}

// withCommas returns whole numbers as they are read best, and other values as they are.
func withCommas(v any) any {
	switch n := v.(type) {
	case int:
		return count(n)
	case int64:
		return count(n)
	case uint32:
		return count(n)
	}
	return v
}

func count[T int | int64 | uint32](n T) rightAligned { return rightAligned(humanize.Comma(int64(n))) }
func size(n int64) rightAligned                      { return rightAligned(humanize.IBytes(uint64(max(n, 0)))) }

func percent(part, whole int64) rightAligned {
	if whole == 0 {
		return "-"
	}
	return rightAligned(fmt.Sprintf("%.1f %%", 100*float64(part)/float64(whole)))
}

func millis(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
