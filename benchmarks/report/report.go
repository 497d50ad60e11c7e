// Package report derives the page of results and its plots from the raw figures: medians
// over the rounds with least and most, each next to its target, met or missed.
//
// Input is the folder of package record's files. Outputs are files by name. The same
// figures give the same bytes. The package starts no goroutine and measures nothing.
package report

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cachesidecar/cachesidecar/benchmarks/plot"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// The files' places, below the folder of the benchmarks.
const (
	RoundsDir = "rounds"
	Page      = "RESULTS.md"
	PlotsDir  = "plots"
)

// section is the page's section on one measurement.
type section struct {
	title string
	head  record.Head
	rows  []row
	body  string // Markdown, below the rows
	plots map[string]plot.Chart
}

// sections are the measurements in the order of the page.
var sections = []struct {
	what   string
	derive func(rounds string) (section, error)
}{
	{record.Socket, socketSection},
	{record.Endpoint, endpointSection},
	{record.Cost, costSection},
	{record.Clients, clientsSection},
	{record.Languages, languagesSection},
	{record.Memory, memorySection},
	{record.GC, gcSection},
	{record.Idle, idleSection},
	{record.Cluster, clusterSection},
	{record.Propagation, propagationSection},
	{record.Changes, changesSection},
	{record.Sizes, sizesSection},
	{record.Loads, loadsSection},
	{record.Overload, overloadSection},
	{record.Hits, hitsSection},
}

// Derive returns the page and the plots by name, from the rounds in the folder of the
// benchmarks. A measurement without rounds is left out.
func Derive(dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	var page []section
	for _, s := range sections {
		sec, err := s.derive(filepath.Join(dir, RoundsDir))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		page = append(page, sec)
		for name, chart := range sec.plots {
			if files[plotPath(name)], err = chart.SVG(); err != nil {
				return nil, err
			}
		}
	}
	if len(page) == 0 {
		return nil, fmt.Errorf("there are no rounds in %s: measure with \"go run ./cmd/bench all\"", filepath.Join(dir, RoundsDir))
	}
	var b strings.Builder
	b.WriteString("# Results\n\nWritten by `go run ./cmd/bench report` from the raw figures in [rounds](rounds); do not edit.\n" +
		"[README.md](README.md) says what is measured, and how.\n\n" +
		"A figure is the median over the rounds, beside the least and the most. A ratio is taken within each round,\n" +
		"whose sides took turns on the same machine. A target is compared with the median.\n\n")
	b.WriteString(overview(page))
	b.WriteString(machines(page))
	for _, s := range page {
		b.WriteString("## " + s.title + "\n\n" + s.String())
	}
	files[Page] = []byte(strings.TrimRight(b.String(), "\n") + "\n")
	return files, nil
}

// Section returns the page's section on one measurement.
func Section(dir, what string) (string, error) {
	for _, s := range sections {
		if s.what == what {
			sec, err := s.derive(filepath.Join(dir, RoundsDir))
			return sec.String(), err
		}
	}
	return "", fmt.Errorf("%q is not measured", what)
}

func plotPath(name string) string { return PlotsDir + "/" + name + ".svg" }

// String returns the section without its title.
func (s section) String() string {
	text := fmt.Sprintf("Measured on %s at commit %s, with `%s`.\n\n", s.head.Date.UTC().Format("2006-01-02"), s.head.Commit, s.head.Command)
	if len(s.rows) > 0 {
		text += rowsTable(s.rows)
	}
	return text + s.body
}

// image embeds a plot.
func image(name, text string) string { return fmt.Sprintf("![%s](%s)\n\n", text, plotPath(name)) }

// overview counts the targets and lists the missed ones.
func overview(page []section) string {
	var all, met int
	missed := table{head: []string{"what", "figure", "median", "target", ""}, left: 2}
	for _, s := range page {
		for _, r := range s.rows {
			if r.target == nil {
				continue
			}
			if all++; r.target.met(r.spread.median) {
				met++
				continue
			}
			missed.add(r.what, r.figure, minus(fmt.Sprintf(r.format, r.spread.median)), r.target.String(), r.target.verdict(r.spread.median))
		}
	}
	text := fmt.Sprintf("%d of %d targets are met", met, all)
	if len(missed.rows) == 0 {
		return text + ".\n\n"
	}
	return text + "; missed are:\n\n" + missed.String()
}

// machines describes the machine and the versions. Equal descriptions appear once.
func machines(page []section) string {
	text := "## Machine and versions\n\n"
	var told []string
	for _, s := range page {
		m := s.head.Machine
		line := fmt.Sprintf("%s, %d cores, %s of memory; %s, kernel %s, transparent huge pages: %s.", orUnknown(m.CPU), m.Cores, gib(m.Memory), m.OS, m.Kernel, orUnknown(m.HugePages))
		if !slices.Contains(told, line) {
			told = append(told, line)
		}
	}
	text += strings.Join(told, "\n\n") + "\n\n"
	versions := map[string][]string{}
	for _, s := range page {
		for name, v := range s.head.Versions {
			if !slices.Contains(versions[name], v) {
				versions[name] = append(versions[name], v)
			}
		}
	}
	var list []string
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		list = append(list, name+" "+strings.Join(versions[name], " and "))
	}
	text += "Versions: " + strings.Join(list, ", ") + ".\n\n"
	load := table{head: []string{"measurement", "commit", "date (UTC)", "load average before"}, left: 3}
	for _, s := range page {
		h := s.head
		load.add(h.What, h.Commit, h.Date.UTC().Format("2006-01-02 15:04"), fmt.Sprintf("%.2f", h.Machine.Load))
	}
	return text + load.String()
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func gib(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }
