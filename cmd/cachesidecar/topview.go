package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/rivo/uniseg"

	"github.com/cachesidecar/cachesidecar"
)

// view is how top shows samples.
type view struct {
	interval time.Duration
	by       *order
	bold     bool // heads of tables are bold
	prompt   bool // the keys that may be pressed are shown
}

// minName is the least width of a name. Wider names are cut.
const minName = 14

// frame returns the lines of a page of the given size, none of which is wider than the
// page. A height of zero has no limit. last is the sample before now, if there is one.
func (v *view) frame(now, last *sample, width, height int) []string {
	list := hosts(now, last)
	v.by.sort(list)
	names := spaces(now, last)
	v.by.sort(names)
	head := v.head(now, list)
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
	for i, lengths := 0, share(tables, room, height > 0); i < len(tables); i++ {
		table := shorten(tables[i], lengths[i])
		if i == len(tables)-1 { // there are always more keys
			table = tables[i][:lengths[i]+1]
		}
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
func (v *view) head(now *sample, list []activity) []string {
	all := sum(list)
	answered := fmt.Sprintf("%d of %d hosts", len(now.nodes), len(list))
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
	for i := range now.nodes {
		if c := &now.nodes[i].Cluster; c.In && c.Isolated != "" && !c.AloneOK {
			lines = append(lines, now.nodes[i].Node+" is alone: "+c.Isolated)
		}
	}
	if now.err != nil {
		lines = append(lines, "NO ANSWER: "+now.err.Error())
	}
	return lines
}

// table returns a head and a line for each activity. The names take what is left of the
// width.
func (v *view) table(title string, list []activity, width int, ofHosts bool) []string {
	name := minName
	for i := range list {
		name = max(name, uniseg.StringWidth(list[i].name))
	}
	fixed := 66 // columns beside the name
	name = max(minName, min(name, width-fixed))
	var head string
	if ofHosts {
		head = fmt.Sprintf("%s %-7s %7s %7s %6s %6s %6s %7s  %s",
			pad(title, name), "STATE", "READS/S", "WRITE/S", "HITS", "LOAD/S", "ERR/S", "LAG", "L2 USED")
	} else {
		head = fmt.Sprintf("%s %7s %7s %6s %6s %6s %9s  %s",
			pad(title, name), "READS/S", "WRITE/S", "HITS", "LOAD/S", "ERR/S", "ENTRIES", "MEMORY")
	}
	lines := []string{head}
	for i := range list {
		a := &list[i]
		memory := size(a.used)
		switch {
		case ofHosts && a.silent != "":
			lines = append(lines, fmt.Sprintf("%s %-7s %s", pad(a.name, name), a.state, a.silent))
			continue
		case ofHosts:
			memory = percent(a.used, a.limit) // of the host's limit, which is alike on all
			lines = append(lines, fmt.Sprintf("%s %-7s %7s %7s %6s %6s %6s %7s  %s", pad(a.name, name), a.state,
				perSecond(a.reads), perSecond(a.writes), ratio(a.hits), perSecond(a.loads), perSecond(a.errors),
				short(a.lag), memory))
			continue
		}
		if a.limit > 0 {
			memory += " of " + size(a.limit)
		}
		lines = append(lines, fmt.Sprintf("%s %7s %7s %6s %6s %6s %9s  %s", pad(a.name, name),
			perSecond(a.reads), perSecond(a.writes), ratio(a.hits), perSecond(a.loads), perSecond(a.errors),
			count(a.entries), memory))
	}
	return lines
}

// hottest returns the keys that this host has read most.
func (v *view) hottest(now *sample, width int) []string {
	space := len("NAMESPACE")
	for _, k := range now.hot.Keys {
		space = max(space, uniseg.StringWidth(k.Namespace))
	}
	space = min(space, max(minName, width/3))
	lines := []string{fmt.Sprintf("HOTTEST %7s %7s  %s KEY", "READS/S", "SHARE", pad("NAMESPACE", space))}
	switch {
	case now.notHot != "":
		return append(lines, "not available: "+now.notHot)
	case len(now.hot.Keys) == 0:
		return append(lines, "none: no key was seen among the reads of this host")
	}
	for i, k := range now.hot.Keys {
		lines = append(lines, fmt.Sprintf("%7d %7s %7s  %s %s", i+1, hotRate(&now.hot, k.Reads),
			percent(k.Reads, now.hot.Reads), pad(k.Namespace, space), k.Key))
	}
	return lines
}

func hotRate(hot *cachesidecar.HotKeys, reads int64) string {
	return perSecond(float64(reads) / max(float64(hot.WindowMS)/1000, 1))
}

// share divides room among tables, whose heads it does not count. Tables that need less
// than an equal part leave the rest to the others.
func share(tables [][]string, room int, limited bool) []int {
	lengths := make([]int, len(tables))
	for i, t := range tables {
		lengths[i] = len(t) - 1
	}
	for need := total(lengths); limited && need > max(room, 0); need = total(lengths) {
		most := 0
		for i, n := range lengths {
			if n >= lengths[most] {
				most = i
			}
		}
		lengths[most]--
	}
	return lengths
}

func total(list []int) (sum int) {
	for _, n := range list {
		sum += n
	}
	return sum
}

// shorten returns a table's head and its first n lines, the last of which says how many
// are left out.
func shorten(table []string, n int) []string {
	left := len(table) - 1 - n
	if left <= 0 || n == 0 {
		return table[:n+1]
	}
	return append(table[:n:n], fmt.Sprintf("… and %d more", left+1))
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

// pad returns a text of exactly the given width in columns.
func pad(s string, width int) string {
	s = cut(s, width)
	return s + strings.Repeat(" ", max(width-uniseg.StringWidth(s), 0))
}

// perSecond formats a rate in at most six columns.
func perSecond(rate float64) string {
	switch {
	case rate < 0:
		return "-"
	case rate == 0:
		return "0"
	case rate < 9.95:
		return fmt.Sprintf("%.1f", rate)
	case rate < 99_999.5:
		return fmt.Sprintf("%.0f", rate)
	}
	n, unit := humanize.ComputeSI(rate)
	return fmt.Sprintf("%.4g%s", n, unit)
}

func ratio(r float64) string {
	if r < 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*r)
}

// short formats a time in at most seven columns.
func short(d time.Duration) string {
	for _, unit := range []time.Duration{time.Second, time.Millisecond, time.Microsecond} {
		if d >= unit {
			return d.Round(unit / 10).String()
		}
	}
	return "0s"
}
