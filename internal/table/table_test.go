package table

import (
	"testing"
	"time"
)

// TestLines checks that texts stand to the left and all else to the right, that a text which ends a row early widens
// no column, and that nothing moves the cursor.
func TestLines(t *testing.T) {
	rows := Rows{{"NAME", "N", "SHARE", "TOOK"}}
	rows.AddRow("日本", 1234567, Percent(1, 8), time.Millisecond)
	rows.AddRow("a\x1b[2J", 1, Percent(1, 0), time.Second)
	rows.AddRow("b", "no answer: this text is longer than its column")
	want := "NAME              N   SHARE  TOOK\n" +
		"日本      1,234,567  12.5 %   1ms\n" +
		"a\\x1b[2J          1       -    1s\n" +
		"b         no answer: this text is longer than its column\n"
	if got := rows.String(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// TestNumbers checks how numbers and sizes are written.
func TestNumbers(t *testing.T) {
	for got, want := range map[RightAligned]RightAligned{
		Count(0): "0", Count(int64(1 << 20)): "1,048,576", Size(-1): "0 B", Size(3 << 20): "3.0 MiB", Percent(1, 3): "33.3 %",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
