package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/rivo/uniseg"

	"github.com/cachesidecar/cachesidecar/internal/condition"
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
	names, sum := spaces(now, last)
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
	lines := head
	for i, table := range tables { // what a table does not need is for those below it
		if n := max(room/(len(tables)-i), 0); height > 0 && len(table)-1 > n {
			table = shorten(table, n, i < len(tables)-1)
		}
		room -= len(table) - 1
		lines = append(append(lines, ""), table...)
	}
	if foot != "" {
		lines = append(lines, "", foot)
	}
	if height > 0 && len(lines) > height {
		lines = lines[:height]
	}
	for i, line := range lines {
		lines[i] = cut(line, width)
		if v.bold && isHead(line) {
			lines[i] = "\x1b[1m" + lines[i] + "\x1b[0m"
		}
	}
	return lines
}

func isHead(line string) bool {
	for _, head := range []string{"HOST ", "NAMESPACE ", "HOTTEST "} {
		if strings.HasPrefix(line, head) {
			return true
		}
	}
	return false
}

// head returns the lines about everything.
func (v *view) head(now *sample, all *activity, hosts int) []string {
	answered := fmt.Sprintf("%d of %d hosts", len(now.nodes), hosts)
	if now.alone != "" {
		answered = "this host only"
	}
	lines := []string{
		fmt.Sprintf("cachesidecar top on %s: %s, every %v, by %s, at %s",
			cmp.Or(now.here, "no host"), answered, v.interval, v.by.name, now.at.Format(time.TimeOnly)),
		fmt.Sprintf("%s reads/s, %s hits, %s writes/s, %s loads/s, %s errors/s, %s entries, %s of %s",
			perSecond(all.reads), ratio(all.hits), perSecond(all.writes), perSecond(all.loads), perSecond(all.errors),
			count(all.entries), size(all.used), size(all.limit)),
	}
	if now.alone != "" {
		lines = append(lines, "other hosts: "+now.alone)
	}
	if wrong := now.wrong(); len(wrong) > 0 {
		text := "not well: " + condition.AtMost(wrong, condition.Few, "\n          ")
		lines = append(lines, strings.Split(text, "\n")...)
	}
	if now.err != nil {
		lines = append(lines, "NO ANSWER: "+now.err.Error())
	}
	return lines
}

// table returns a head and a line for each activity.
func (v *view) table(title string, list []activity, width int, ofHosts bool) []string {
	t := table{{title, "READS/S", "WRITE/S", "HITS", "LOAD/S", "ERR/S", "ENTRIES", "MEMORY"}}
	if ofHosts {
		t = table{{title, "STATE", "READS/S", "WRITE/S", "HITS", "LOAD/S", "ERR/S", "LAG", "L2 USED"}}
	}
	for i := range list {
		a := &list[i]
		name := cut(a.name, max(minName, width-columnsBeside))
		reads, writes, hits := perSecond(a.reads), perSecond(a.writes), ratio(a.hits)
		loads, errors := perSecond(a.loads), perSecond(a.errors)
		switch {
		case ofHosts && a.silent != "":
			t.row(name, a.state, a.silent)
		case ofHosts: // the memory of the host's limit, which is alike on all
			t.row(name, a.state, reads, writes, hits, loads, errors, short(a.lag), percent(a.used, a.limit))
		case a.limit > 0:
			t.row(name, reads, writes, hits, loads, errors, a.entries, size(a.used)+" of "+size(a.limit))
		default:
			t.row(name, reads, writes, hits, loads, errors, a.entries, size(a.used))
		}
	}
	return t.lines()
}

// hottest returns the keys that this host has read most.
func (v *view) hottest(now *sample, width int) []string {
	t := table{{"HOTTEST", "READS/S", "SHARE", "NAMESPACE", "KEY"}}
	switch {
	case now.notHot != "":
		t.row("not available: " + now.notHot)
	case len(now.hot.Keys) == 0:
		t.row("none: no key was seen among the reads of this host")
	}
	for i, k := range now.hot.Keys {
		rate := float64(k.Reads) / max(float64(now.hot.WindowMS)/1000, 1)
		t.row(i+1, perSecond(rate), percent(k.Reads, now.hot.Reads), cut(k.Namespace, max(minName, width/3)), k.Key)
	}
	return t.lines()
}

// shorten returns a table's head and its first n lines. The last of them may say how many are left out.
func shorten(table []string, n int, tell bool) []string {
	if n == 0 || !tell { // there are always more keys
		return table[:n+1]
	}
	return append(table[:n:n], fmt.Sprintf("… and %d more", len(table)-n))
}

// cut shortens a line to a width in columns. It never divides a character.
func cut(line string, width int) string {
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
func perSecond(rate float64) figure {
	switch {
	case rate < 0:
		return "-"
	case rate == 0:
		return "0"
	case rate < 9.95:
		return figure(fmt.Sprintf("%.1f", rate))
	case rate < 99_999.5:
		return figure(fmt.Sprintf("%.0f", rate))
	}
	n, unit := humanize.ComputeSI(rate)
	return figure(fmt.Sprintf("%.4g%s", n, unit))
}

func ratio(r float64) figure {
	if r < 0 {
		return "-"
	}
	return figure(fmt.Sprintf("%.1f%%", 100*r))
}

// short formats a time in at most seven columns.
func short(d time.Duration) time.Duration {
	for _, unit := range []time.Duration{time.Second, time.Millisecond, time.Microsecond} {
		if d >= unit {
			return d.Round(unit / 10)
		}
	}
	return 0
}
