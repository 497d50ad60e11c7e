// Package record keeps the raw figures of measurements, so that every table and plot can
// be derived from them again. Each measurement has one JSON file: the machine, the
// parameters, and each round's figures.
//
// Inputs and outputs are the types below and files in a folder. The package starts no
// goroutine and derives nothing from the figures; package report does that.
package record

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
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

// File is one recorded measurement. P is its parameters, R is one row of figures.
type File[P, R any] struct {
	Head
	Parameters P
	Rows       []R
}

// Write writes a file into a folder, with one line per row. It replaces the previous
// file.
func Write[P, R any](dir string, f File[P, R]) error {
	head, err := json.MarshalIndent(struct {
		Head
		Parameters P `json:"parameters"`
	}{f.Head, f.Parameters}, "", "  ")
	if err != nil {
		return fmt.Errorf("rounds of %s: %w", f.What, err)
	}
	var b bytes.Buffer
	b.Write(bytes.TrimSuffix(head, []byte("\n}")))
	b.WriteString(",\n  \"rows\": [")
	for i, r := range f.Rows {
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
func Read[P, R any](dir, what string) (File[P, R], error) {
	path := filepath.Join(dir, what+".json")
	raw, err := os.ReadFile(path)
	if err != nil {
		return File[P, R]{}, fmt.Errorf("no rounds of %s: %w: measure them with \"go run ./cmd/bench %s\"", what, err, what)
	}
	var f struct {
		Head
		Parameters P   `json:"parameters"`
		Rows       []R `json:"rows"`
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return File[P, R]{}, fmt.Errorf("%s: %w: measure it again with \"go run ./cmd/bench %s\"", path, err, what)
	}
	if f.What != what || len(f.Rows) == 0 {
		return File[P, R]{}, fmt.Errorf("%s holds %d rows of %q, want some of %q: measure it again with \"go run ./cmd/bench %s\"", path, len(f.Rows), f.What, what, what)
	}
	return File[P, R]{f.Head, f.Parameters, f.Rows}, nil
}
