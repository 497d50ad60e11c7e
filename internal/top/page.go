package top

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/rivo/uniseg"

	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/table"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
)

// view is how top shows samples.
type view struct {
	interval time.Duration
	by       *order
	bold     bool // heads of tables are bold
	prompt   bool // the keys that may be pressed are shown
}

// A name that is wider than what the other columns leave is cut, but not below minName.
const minName, columnsBeside = 14, 66

// frame returns the lines of a page of the given size, none of which is wider than the
// page. A height of zero has no limit. last is the sample before now, if there is one.
func (v *view) frame(now, last *sample, width, height int) []string {
	list := hosts(now, last)
	v.by.sort(list)
	names, sum := namespaceActivities(now, last)
	v.by.sort(names)
	head := v.head(now, &sum, len(list))
	tables := [][]string{
		v.table("HOST", list, width, true),
		v.table("NAMESPACE", names, width, false),
		v.hottest(now, width),
	}
	foot := ""
	if v.prompt {
		foot = "q quit; order by: r reads  w writes  h misses  l loads  e errors  g lag  m memory  n name"
	}
	room := height - len(head) - 2*len(tables) // a blank line and a head for each
	if foot != "" {
		room -= 2
	}
	lines, heads := head, map[int]bool{}
	for i, table := range tables { // what a table does not need is for those below it
		if n := max(room/(len(tables)-i), 0); height > 0 && len(table)-1 > n {
			table = shorten(table, n, i < len(tables)-1)
		}
		room -= len(table) - 1
		heads[len(lines)+1] = true
		lines = append(append(lines, ""), table...)
	}
	if foot != "" {
		lines = append(lines, "", foot)
	}
	if height > 0 && len(lines) > height {
		lines = lines[:height]
	}
	for i, line := range lines {
		lines[i] = fitWidth(logs.Plain(line), width)
		if v.bold && heads[i] {
			lines[i] = "\x1b[1m" + lines[i] + "\x1b[0m"
		}
	}
	return lines
}

// pressKey chooses the order that a key stands for.
func (v *view) pressKey(key byte) {
	for i := range orders {
		if orders[i].key == key {
			v.by = &orders[i]
		}
	}
}

// head returns the lines about everything.
func (v *view) head(now *sample, all *activity, hosts int) []string {
	answered := fmt.Sprintf("%d of %d hosts", len(now.Nodes), hosts)
	if now.alone != "" {
		answered = "this host only"
	}
	lines := []string{
		fmt.Sprintf("cachesidecar top on %s: %s, every %v, by %s, at %s",
			cmp.Or(now.here, "no host"), answered, v.interval, v.by.name, now.at.Format(time.TimeOnly)),
		fmt.Sprintf("%s reads/s, %s hits, %s writes/s, %s loads/s, %s errors/s, %s entries, %s of %s",
			perSecond(all.Reads), ratio(all.Hits), perSecond(all.Writes), perSecond(all.Loads), perSecond(all.Errors),
			table.Count(all.entries), table.Size(all.used), table.Size(all.limit)),
	}
	if now.alone != "" {
		lines = append(lines, "other hosts: "+now.alone)
	}
	if wrong := now.findings(); len(wrong) > 0 {
		text := "not well: " + wrong.FirstPlain(telemetry.FewFindings, "\n          ")
		lines = append(lines, strings.Split(text, "\n")...)
	}
	if now.err != nil {
		lines = append(lines, "NO ANSWER: "+now.err.Error())
	}
	return lines
}

// table returns a head and a line for each activity.
func (v *view) table(title string, list []activity, width int, ofHosts bool) []string {
	t := table.Rows{{title, "READS/S", "WRITE/S", "HITS", "LOAD/S", "ERR/S", "ENTRIES", "MEMORY"}}
	if ofHosts {
		t = table.Rows{{title, "STATE", "READS/S", "WRITE/S", "HITS", "LOAD/S", "ERR/S", "LAG", "L2 USED"}}
	}
	for i := range list {
		a := &list[i]
		name := fitWidth(logs.Plain(a.name), max(minName, width-columnsBeside))
		reads, writes, hits := perSecond(a.Reads), perSecond(a.Writes), ratio(a.Hits)
		loads, errors := perSecond(a.Loads), perSecond(a.Errors)
		memory := table.Size(a.used)
		if a.limit > 0 {
			memory += " of " + table.Size(a.limit)
		}
		switch {
		case ofHosts && a.silent != "":
			t.AddRow(name, a.state, a.silent)
		case ofHosts: // the memory of the host's limit, which is alike on all
			t.AddRow(name, a.state, reads, writes, hits, loads, errors, roundTime(a.lag),
				table.Percent(a.used, a.limit))
		default:
			t.AddRow(name, reads, writes, hits, loads, errors, a.entries, memory)
		}
	}
	return t.Lines()
}

// hottest returns the keys that this host has read most.
func (v *view) hottest(now *sample, width int) []string {
	t := table.Rows{{"HOTTEST", "READS/S", "SHARE", "NAMESPACE", "KEY"}}
	switch {
	case now.hotRefused != "":
		t.AddRow("not available: " + now.hotRefused)
	case len(now.hot.Keys) == 0:
		t.AddRow("none: no key was seen among the reads of this host")
	}
	for i, k := range now.hot.Keys {
		rate := float64(k.Reads) / max(float64(now.hot.WindowMS)/1000, 1)
		ns := fitWidth(logs.Plain(k.Namespace), max(minName, width/3))
		t.AddRow(i+1, perSecond(rate), table.Percent(k.Reads, now.hot.Reads), ns, k.Key)
	}
	return t.Lines()
}

// shorten returns a table's head and its first n lines. The last of them may say how many are left out.
func shorten(table []string, n int, tell bool) []string {
	if n == 0 || !tell { // there are always more keys
		return table[:n+1]
	}
	return append(table[:n:n], fmt.Sprintf("… and %d more", len(table)-n))
}

// fitWidth shortens a line to a width in columns. It never divides a character.
func fitWidth(line string, width int) string {
	if width <= 0 || uniseg.StringWidth(line) <= width {
		return line
	}
	var out strings.Builder
	state, used := -1, 0
	for rest := line; rest != ""; {
		var cluster string
		var w int
		cluster, rest, w, state = uniseg.FirstGraphemeClusterInString(rest, state)
		if used+w > width-1 { // one column for the mark
			break
		}
		used += w
		out.WriteString(cluster)
	}
	return out.String() + "…"
}

// perSecond formats a rate in at most six columns.
func perSecond(rate float64) table.RightAligned {
	switch {
	case rate < 0:
		return "-"
	case rate == 0:
		return "0"
	case rate < 9.95:
		return table.RightAligned(fmt.Sprintf("%.1f", rate))
	case rate < 99_999.5:
		return table.RightAligned(fmt.Sprintf("%.0f", rate))
	}
	n, unit := humanize.ComputeSI(rate)
	return table.RightAligned(fmt.Sprintf("%.4g%s", n, unit))
}

func ratio(r float64) table.RightAligned {
	if r < 0 {
		return "-"
	}
	return table.RightAligned(fmt.Sprintf("%.1f%%", 100*r))
}

// roundTime leaves of a time what fits in seven columns.
func roundTime(d time.Duration) time.Duration {
	for _, unit := range []time.Duration{time.Second, time.Millisecond, time.Microsecond} {
		if d >= unit {
			return d.Round(unit / 10)
		}
	}
	return 0
}
