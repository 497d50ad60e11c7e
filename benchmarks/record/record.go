// Package record keeps the figures of measurements, so that every table and plot can
// be derived from them again. Each measurement has one JSON file: the machine, the
// parameters, and rows of figures, each with its values in all rounds.
//
// Inputs and outputs are the types below and files in a folder. The package starts no
// goroutine and derives nothing from the figures; package report does that.
package record

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// Head describes the origin of figures.
type Head struct {
	What     string            `json:"what"`
	Command  string            `json:"command"`
	Commit   string            `json:"commit"` // with "+" if the code differed from it
	Date     time.Time         `json:"date"`
	Machine  Machine           `json:"machine"`
	Versions map[string]string `json:"versions"` // by name
}

// Row is one figure of one side of a comparison under one load.
type Row struct {
	// Part is the part of a measurement whose parts can be measured apart.
	Part   string    `json:"part,omitempty"`
	Shape  string    `json:"shape"` // the load, as the page calls it
	Side   string    `json:"side,omitempty"`
	Figure string    `json:"figure"` // with its unit
	Values []float64 `json:"values"` // one a round
}

// Rows are the rows of a measurement, in the order of the page.
type Rows []Row

// Of returns the values of a figure; nil if there are none.
func (r Rows) Of(shape, side, figure string) []float64 {
	if at := r.find(shape, side, figure); at >= 0 {
		return r[at].Values
	}
	return nil
}

func (r Rows) find(shape, side, figure string) int {
	return slices.IndexFunc(r, func(o Row) bool { return o.Shape == shape && o.Side == side && o.Figure == figure })
}

// Add adds the values of further rounds to a figure.
func (r *Rows) Add(shape, side, figure string, values ...float64) {
	at := r.find(shape, side, figure)
	if at < 0 {
		at = len(*r)
		*r = append(*r, Row{Shape: shape, Side: side, Figure: figure})
	}
	for _, v := range values { // more digits are noise
		v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'g', 9, 64), 64)
		(*r)[at].Values = append((*r)[at].Values, v)
	}
}

// Join adds further rounds, and rows that are not there.
func (r *Rows) Join(more Rows) {
	for _, m := range more {
		if at := r.find(m.Shape, m.Side, m.Figure); at >= 0 {
			(*r)[at].Values = append((*r)[at].Values, m.Values...)
		} else {
			*r = append(*r, m)
		}
	}
}

// Commas formats a number as the page does: whole, with commas.
func Commas[N int | int64 | float64](n N) string {
	s := strconv.FormatFloat(math.Round(float64(n)), 'f', 0, 64)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// File is one recorded measurement.
type File struct {
	Head
	Parameters Parameters `json:"parameters"`
	Rows       Rows       `json:"rows"`
}

// Write writes a file into a folder, with one line per row. It replaces the previous
// file.
func Write(dir string, f File) error {
	rows := f.Rows
	f.Rows = nil
	head, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("rounds of %s: %w", f.What, err)
	}
	var b bytes.Buffer
	b.Write(bytes.TrimSuffix(head, []byte("null\n}")))
	b.WriteByte('[')
	for i, r := range rows {
		row, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("rounds of %s: %w", f.What, err)
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n    ")
		b.Write(row)
	}
	b.WriteString("\n  ]\n}\n")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(dir, f.What+".json")
	if err := os.WriteFile(path+".new", b.Bytes(), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Read reads a file of Write. If the file does not exist, the error wraps fs.ErrNotExist.
func Read(dir, what string) (f File, err error) {
	path := filepath.Join(dir, what+".json")
	raw, err := os.ReadFile(path)
	if err != nil {
		return f, fmt.Errorf("no rounds of %s: %w: measure them with \"go run ./cmd/bench %s\"", what, err, what)
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return f, fmt.Errorf("%s: %w: measure it again with \"go run ./cmd/bench %s\"", path, err, what)
	}
	if f.What != what || len(f.Rows) == 0 {
		return f, fmt.Errorf("%s holds %d rows of %q, want some of %q: measure it again with \"go run ./cmd/bench %s\"", path, len(f.Rows), f.What, what, what)
	}
	return f, nil
}

// Kept returns a folder's rounds of a measurement, without those of the given parts, so that rounds of the
// same commit can be added.
func Kept(dir, what string, without ...string) (File, error) {
	f, err := Read(dir, what)
	f.Rows = slices.DeleteFunc(f.Rows, func(r Row) bool { return slices.Contains(without, r.Part) })
	if err == nil && len(f.Rows) > 0 && f.Commit != Commit() {
		err = fmt.Errorf("the rounds of %s are of commit %s, and this is %s: measure all of them again", what, f.Commit, Commit())
	}
	return f, err
}
