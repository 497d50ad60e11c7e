// Command bench measures the sidecar against its peers, and writes the page of results
// from the measurements. Run it in the folder benchmarks:
//
//	go run ./cmd/bench socket|memcached|cost|clients|languages|memory|gc|idle|cluster|propagation|changes|tls|sizes|loads|overload|hits|report|all [flags]
//
// Inputs are flags. Outputs are rounds/*.json (raw figures) and, with report, RESULTS.md
// and plots/*.svg. It starts the servers that it measures, and ends them. Its figures
// hold only for the machine that it runs on.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cachesidecar/cachesidecar/benchmarks/measure"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/benchmarks/report"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// program is the command's outputs.
type program struct {
	out, log io.Writer
}

func run(ctx context.Context, args []string, out, log io.Writer) error {
	p := &program{out, log}
	if len(args) > 0 {
		switch args[0] {
		case "all":
			return all(ctx, p, args[1:])
		case "report":
			return writeReport(p, args[1:])
		}
		for i := range measurements {
			if m := &measurements[i]; m.name == args[0] {
				return m.measure(ctx, p, args[1:])
			}
		}
	}
	fmt.Fprintf(log, "usage: go run ./cmd/bench WHAT [flags]; WHAT -h lists the flags\n\n")
	for _, m := range measurements {
		fmt.Fprintf(log, "  %-11s %s\n", m.name, m.does)
	}
	fmt.Fprintf(log, "  %-11s write RESULTS.md and the plots from rounds/*.json\n", "report")
	fmt.Fprintf(log, "  %-11s all of these in turn; hits if -traces is given\n", "all")
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		return fmt.Errorf("%q is not measured: give one of the words above", args[0])
	}
	return flag.ErrHelp
}

// all runs every measurement with default parameters, and writes the report.
func all(ctx context.Context, p *program, args []string) error {
	f := newFlags(p, "all")
	traces := f.String("traces", "", "the `folder` of traces for hits; without it their last rounds stay")
	if err := f.parse(args); err != nil {
		return err
	}
	for i := range measurements {
		m := &measurements[i]
		own := []string{"-dir", f.dir}
		if m.name == record.Hits {
			if *traces == "" {
				continue
			}
			own = append(own, "-traces", *traces)
		}
		fmt.Fprintf(p.log, "== %s: %s\n", m.name, m.does)
		if err := m.measure(ctx, p, own); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return writeReport(p, []string{"-dir", f.dir})
}

// measure runs the measurement, keeps its rows in a file, and prints its section of the page.
func (m *measurement) measure(ctx context.Context, p *program, args []string) error {
	f, v := newFlags(p, m.name), m.usual
	f.parameters(&v, m.also...)
	maps.Copy(f.least, m.least)
	if err := f.parse(args); err != nil {
		return err
	}
	if m.check != nil {
		if err := m.check(&v); err != nil {
			return fmt.Errorf("%s %w", m.name, err)
		}
	}
	dir := filepath.Join(f.dir, report.RoundsDir)
	kept, err := m.kept(dir, &v)
	if err != nil {
		return err
	}
	file := record.File{Head: f.head(), Parameters: v, Rows: kept.Rows} // first: head records the load average before the run
	maps.Copy(file.Versions, kept.Versions)
	rows, err := m.rows(ctx, p, v, file.Versions)
	if err != nil {
		return err
	}
	file.Rows.Join(rows)
	if m.name != record.TLS { // it is not on the page, because it compares sidecars with each other
		if err := record.Write(dir, file); err != nil {
			return err
		}
	}
	text, err := report.Text(file)
	if err != nil {
		return err
	}
	fmt.Fprintln(p.out, text)
	if m.name == record.TLS {
		return nil
	}
	fmt.Fprintf(p.log, "kept in %s; \"go run ./cmd/bench report\" writes %s from it\n", filepath.Join(dir, f.what+".json"), report.Page)
	return nil
}

// kept returns the rounds that stay.
func (m *measurement) kept(dir string, p *record.Parameters) (record.File, error) {
	if p.Parts == "" && !p.More {
		return record.File{}, nil
	}
	var measured []string
	if p.Parts != "" {
		measured = strings.Split(p.Parts, ",")
	}
	f, err := record.Kept(dir, m.name, measured...)
	if !p.More && errors.Is(err, fs.ErrNotExist) {
		return record.File{}, nil
	}
	if len(f.Rows) == 0 {
		f.Versions = nil
	}
	return f, err
}

// rows measures, and adds the versions of what was measured.
func (m *measurement) rows(ctx context.Context, p *program, v record.Parameters, versions map[string]string) (record.Rows, error) {
	if m.name == record.Hits {
		return measure.Hits(ctx, v, p.log)
	}
	b, err := measure.Open(ctx, p.log)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	err = b.Run(ctx, v, m.run)
	maps.Copy(versions, b.Versions())
	return b.Rows(), err
}

// writeReport writes the page and the plots.
func writeReport(p *program, args []string) error {
	f := newFlags(p, "report")
	if err := f.parse(args); err != nil {
		return err
	}
	files, err := report.Derive(f.dir)
	if err != nil {
		return err
	}
	// Plots of former measurements are removed.
	if err := os.RemoveAll(filepath.Join(f.dir, report.PlotsDir)); err != nil {
		return err
	}
	for name, content := range files {
		path := filepath.Join(f.dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	fmt.Fprintf(p.log, "wrote %s and %d plots\n", filepath.Join(f.dir, report.Page), len(files)-1)
	return nil
}
