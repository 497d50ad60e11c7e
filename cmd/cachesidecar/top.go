package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/rivo/uniseg"
	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/table"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
)

func topCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:  "top",
		Usage: "show live what all hosts do, on a terminal",
		Description: "Hosts, namespaces, and the keys that this host reads most; q or Ctrl-C ends it.\n" +
			"The keys r, w, h, l, e, g, m and n choose the order: reads, writes, misses, loads, errors, lag,\n" +
			"memory, name. For administrators of the sidecar; others see this host only.",
		Flags: clientFlags(
			timeFlag("interval", "read the numbers anew each `TIME`", 2*time.Second, 200*time.Millisecond, time.Hour),
			boolFlag("once", "print one page after one interval, and need no terminal"),
		),
		Action: withArgs(0, 0, p.top),
	}
}

func (p *program) top(c *cli.Context) error {
	v := &view{interval: c.Duration("interval"), by: &orders[0]}
	in, isFile := p.in.(*os.File)
	live := isFile && isTerminal(p.in) && isTerminal(p.out)
	if !live && !c.Bool("once") {
		return usagef("top: stdin and stdout are no terminal: give --once for one page, " +
			"or use \"cachesidecar stats --cluster --json\"")
	}
	cl, err := connect(c.Context, c)
	if err != nil {
		return err
	}
	defer cl.Close()
	r := &sampler{cl: cl, timeout: c.Duration("timeout")}
	first := r.read(c.Context)
	if first.err != nil {
		return explain(c, first.err)
	}
	if c.Bool("once") {
		return p.topOnce(c, v, r, first)
	}
	v.bold, v.prompt = os.Getenv("NO_COLOR") == "", true
	return topLive(c.Context, &liveTop{view: v, screen: screen{in: in, out: p.out.(*os.File)}, now: first}, r)
}

// topOnce prints one page, as wide as it needs to be.
func (p *program) topOnce(c *cli.Context, v *view, r *sampler, first sample) error {
	if err := sleep(c.Context, v.interval); err != nil {
		return err
	}
	second := r.read(c.Context)
	second.hot.Keys = second.hot.Keys[:min(len(second.hot.Keys), 20)]
	if second.err != nil {
		return explain(c, second.err)
	}
	const width = 200
	_, err := fmt.Fprintln(p.out, strings.Join(v.frame(&second, &first, width, 0), "\n"))
	return err
}

// liveTop is the state of the page on a terminal.
type liveTop struct {
	view   *view
	screen screen
	now    sample
	last   *sample
}

// topLive shows pages until q is pressed or ctx ends. It gives the terminal back in any case.
func topLive(ctx context.Context, t *liveTop, r *sampler) (err error) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer stop()
	signals, continued := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGWINCH, syscall.SIGTSTP)
	signal.Notify(continued, syscall.SIGCONT)
	defer signal.Stop(signals)
	defer signal.Stop(continued)

	defer func() { err = errors.Join(err, t.screen.close()) }()
	if err := t.screen.open(); err != nil {
		return err
	}
	pressed := make(chan byte)
	go readKeys(ctx, t.screen.in, pressed) // ends with the process
	samples, end := sampling(ctx, r, t.view.interval)
	defer end()
	return t.loop(ctx, pressed, samples, signals, continued)
}

// loop draws a page after each event.
func (t *liveTop) loop(
	ctx context.Context, pressed <-chan byte, samples <-chan sample, signals, continued <-chan os.Signal,
) error {
	for {
		if err := t.draw(); err != nil {
			return err
		}
		suspend := false
		select {
		case <-ctx.Done():
			return nil
		case key, ok := <-pressed:
			if !ok || key == 'q' || key == 'Q' || key == ctrlC {
				return nil
			}
			suspend = key == ctrlZ
			t.view.press(key)
		case s := <-samples:
			t.add(s)
		case sig := <-signals:
			suspend = sig == syscall.SIGTSTP
		case <-continued: // the shell has changed the terminal
			if err := errors.Join(t.screen.close(), t.screen.open()); err != nil {
				return err
			}
		}
		if suspend {
			if err := t.screen.suspend(continued); err != nil {
				return err
			}
		}
	}
}

// Keys of terminals.
const (
	ctrlC = 0x03
	ctrlZ = 0x1a
)

// press chooses the order that a key stands for.
func (v *view) press(key byte) {
	for i := range orders {
		if orders[i].key == key {
			v.by = &orders[i]
		}
	}
}

// add takes a sample. One that has failed leaves the numbers of the one before.
func (t *liveTop) add(s sample) {
	if t.now.err = s.err; s.err == nil {
		last := t.now
		t.last, t.now = &last, s
	}
}

// draw writes the page at once, over the one before.
func (t *liveTop) draw() error {
	width, height := t.screen.size()
	lines := t.view.frame(&t.now, t.last, width, height)
	_, err := t.screen.out.WriteString(home + strings.Join(lines, endOfLine) + "\x1b[K" + endOfScreen)
	return err
}

// sampling reads a sample each interval, in a goroutine of its own. end ends it, and waits
// for it.
func sampling(ctx context.Context, r *sampler, interval time.Duration) (samples <-chan sample, end func()) {
	c := make(chan sample)
	return c, background(ctx, func(ctx context.Context) {
		for sleep(ctx, interval) == nil {
			s := r.read(ctx)
			select {
			case c <- s:
			case <-ctx.Done():
			}
		}
	})
}

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
		lines[i] = cut(logs.Plain(line), width)
		if v.bold && heads[i] {
			lines[i] = "\x1b[1m" + lines[i] + "\x1b[0m"
		}
	}
	return lines
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
	if wrong := now.wrong(); len(wrong) > 0 {
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
		name := cut(logs.Plain(a.name), max(minName, width-columnsBeside))
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
			t.AddRow(name, a.state, reads, writes, hits, loads, errors, short(a.lag), table.Percent(a.used, a.limit))
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
		ns := cut(logs.Plain(k.Namespace), max(minName, width/3))
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

// short formats a time in at most seven columns.
func short(d time.Duration) time.Duration {
	for _, unit := range []time.Duration{time.Second, time.Millisecond, time.Microsecond} {
		if d >= unit {
			return d.Round(unit / 10)
		}
	}
	return 0
}
