// Package report derives the page of results and its plots from the raw figures: medians
// over the rounds with least and most, each next to its target, met or missed.
//
// Input is the folder of package record's files. Outputs are files by name. The same
// figures give the same bytes. goals.go has what is compared, and the targets; page.md has
// the prose, and says where tables and plots stand. The package starts no goroutine and
// measures nothing.
package report

import (
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/cachesidecar/cachesidecar/benchmarks/plot"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// The files' places, below the folder of the benchmarks.
const (
	RoundsDir = "rounds"
	Page      = "RESULTS.md"
	PlotsDir  = "plots"
)

// sections are the measurements in the order of the page, with the titles there.
var sections = []struct{ what, title string }{
	{record.Socket, "Throughput and latency on the socket"},
	{record.Endpoint, "The endpoint for memcached's protocol"},
	{record.Cost, "What a request costs"},
	{record.Clients, "Go clients"},
	{record.Languages, "Clients in other languages"},
	{record.Memory, "Memory"},
	{record.GC, "Garbage collection"},
	{record.Idle, "Idle connections"},
	{record.Cluster, "Several hosts"},
	{record.Propagation, "Invalidations"},
	{record.Changes, "Rows that change in PostgreSQL"},
	{record.Sizes, "By the number of hosts"},
	{record.Loads, "Loads"},
	{record.Overload, "Overload"},
	{record.Hits, "Hit ratios"},
}

// further derive rows from the raw ones before anything is printed.
var further = map[string]func(*record.File) error{record.Cost: relateCosts, record.Sizes: modelSizes, record.Hits: compareHits}

//go:embed page.md
var prose string

// section is the page's section on one measurement.
type section struct {
	record.File
	results []result
	plots   map[string]plot.Chart
	text    string
}

// newSection derives a section from the rounds of a measurement.
func newSection(f record.File) (s section, err error) {
	s.File = f
	s.Rows = slices.Clone(f.Rows)
	if f := further[f.What]; f != nil {
		if err := f(&s.File); err != nil {
			return s, err
		}
	}
	if s.results, err = compare(&s.File); err != nil {
		return s, err
	}
	s.plots = charts(&s.File)
	page, err := template.New("page.md").Funcs(s.functions()).Parse(prose)
	if err != nil {
		return s, err
	}
	var b strings.Builder
	if err := page.ExecuteTemplate(&b, f.What, s.Parameters); err != nil {
		return s, err
	}
	s.text = fmt.Sprintf("Measured on %s at commit %s, with `%s`.\n\n", s.Date.UTC().Format("2006-01-02"), s.Commit, s.Command)
	if len(s.results) > 0 {
		s.text += resultsTable(s.results) + "\n"
	}
	s.text += strings.TrimSpace(blankLines.ReplaceAllString(b.String(), "\n\n")) + "\n\n"
	return s, nil
}

// blankLines are what parts that are left out leave behind.
var blankLines = regexp.MustCompile(`\n{3,}`)

// Derive returns the page and the plots by name, from the rounds in the folder of the
// benchmarks. A measurement without rounds is left out.
func Derive(dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	var page []section
	text := ""
	for _, s := range sections {
		f, err := record.Read(filepath.Join(dir, RoundsDir), s.what)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		sec, err := newSection(f)
		if err != nil {
			return nil, err
		}
		page = append(page, sec)
		text += "## " + s.title + "\n\n" + sec.text
		for name, chart := range sec.plots {
			if files[plotPath(name)], err = chart.SVG(); err != nil {
				return nil, err
			}
		}
	}
	if len(page) == 0 {
		return nil, fmt.Errorf("there are no rounds in %s: measure with \"go run ./cmd/bench all\"", filepath.Join(dir, RoundsDir))
	}
	text = "# Results\n\nWritten by `go run ./cmd/bench report` from the raw figures in [rounds](rounds); do not edit.\n" +
		"[README.md](README.md) says what is measured, and how.\n\n" +
		"A figure is the median over the rounds, beside the least and the most. A ratio is taken within each round,\n" +
		"whose sides took turns on the same machine. A target is compared with the median.\n\n" +
		overview(page) + machines(page) + text
	files[Page] = []byte(strings.TrimRight(text, "\n") + "\n")
	return files, nil
}

// Text returns the page's section on one measurement.
func Text(f record.File) (string, error) {
	s, err := newSection(f)
	return s.text, err
}

func plotPath(name string) string { return PlotsDir + "/" + name + ".svg" }

// overview counts the targets and lists the missed ones.
func overview(page []section) string {
	var all, met int
	missed := table{head: []string{"what", "figure", "median", "target", ""}, left: 2}
	for _, s := range page {
		for _, r := range s.results {
			if r.target == "" {
				continue
			}
			if all++; meets(r.target, r.median) {
				met++
				continue
			}
			missed.add(r.what, r.figure, r.print(r.median), r.target, verdict(r.target, r.median))
		}
	}
	text := fmt.Sprintf("%d of %d targets are met", met, all)
	if len(missed.rows) == 0 {
		return text + ".\n\n"
	}
	return text + "; missed are:\n\n" + missed.String() + "\n"
}

// machines describes the machine and the versions. Equal descriptions appear once.
func machines(page []section) string {
	var told []string
	versions := map[string][]string{}
	load := table{head: []string{"measurement", "commit", "date (UTC)", "load average before"}, left: 3}
	for _, s := range page {
		m := s.Machine
		line := fmt.Sprintf("%s, %d cores, %.1f GiB of memory; %s, kernel %s, transparent huge pages: %s.",
			cmp.Or(m.CPU, "unknown"), m.Cores, float64(m.Memory)/(1<<30), m.OS, m.Kernel, cmp.Or(m.HugePages, "unknown"))
		if !slices.Contains(told, line) {
			told = append(told, line)
		}
		for name, v := range s.Versions {
			if !slices.Contains(versions[name], v) {
				versions[name] = append(versions[name], v)
			}
		}
		load.add(s.What, s.Commit, s.Date.UTC().Format("2006-01-02 15:04"), fmt.Sprintf("%.2f", m.Load))
	}
	var list []string
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		list = append(list, name+" "+strings.Join(versions[name], " and "))
	}
	return "## Machine and versions\n\n" + strings.Join(told, "\n\n") + "\n\nVersions: " + strings.Join(list, ", ") + ".\n\n" + load.String() + "\n"
}
