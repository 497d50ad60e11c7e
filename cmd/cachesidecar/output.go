package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/cachesidecar/cachesidecar/internal/logs"
)

// show prints a command's result: one document with --json, else text.
func (p *program) show(c *cli.Context, document any, text func(io.Writer) error) error {
	if c.Bool("json") {
		return p.json(document)
	}
	return text(p.out)
}

// json writes a JSON document.
func (p *program) json(v any) error { return writeJSON(p.out, v, "  ") }

// writeJSON writes a JSON document in which a terminal shows every character.
func writeJSON(out io.Writer, v any, indent string) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetIndent("", indent)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := out.Write(logs.JSON(text.Bytes()))
	return err
}

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// table aligns the output of f, whose cells are separated by tabs. It leaves no spaces at
// the end of a line.
func table(out io.Writer, flags uint, f func(io.Writer)) error {
	var text bytes.Buffer
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', flags)
	f(w)
	if err := w.Flush(); err != nil {
		return err
	}
	for line := range bytes.Lines(text.Bytes()) {
		if _, err := fmt.Fprintf(out, "%s\n", bytes.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// errWriter keeps the errors of its writes.
type errWriter struct {
	out io.Writer
	err error
}

func (w *errWriter) printf(format string, args ...any) {
	_, err := fmt.Fprintf(w.out, format, args...)
	w.err = errors.Join(w.err, err)
}

// shown returns a copy of a sidecar's answer in which all texts are fit for a terminal.
// Names of hosts, and what is wrong with them, come from other hosts, which may not be
// trusted.
func shown[T any](v T) T {
	return shownValue(reflect.ValueOf(&v).Elem()).Interface().(T)
}

// shownValue returns a changed copy of v; v itself stays as it is.
func shownValue(v reflect.Value) reflect.Value {
	out := reflect.New(v.Type()).Elem()
	out.Set(v)
	switch v.Kind() {
	case reflect.String:
		out.SetString(logs.Plain(v.String()))
	case reflect.Struct:
		for i := range v.NumField() {
			if out.Field(i).CanSet() {
				out.Field(i).Set(shownValue(v.Field(i)))
			}
		}
	case reflect.Slice:
		if v.IsNil() {
			break
		}
		out.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
		for i := range v.Len() {
			out.Index(i).Set(shownValue(v.Index(i)))
		}
	case reflect.Map:
		if v.IsNil() {
			break
		}
		out.Set(reflect.MakeMapWithSize(v.Type(), v.Len()))
		for k, e := range v.Seq2() {
			out.SetMapIndex(shownValue(k), shownValue(e))
		}
	case reflect.Pointer:
		if !v.IsNil() {
			out.Set(reflect.New(v.Type().Elem()))
			out.Elem().Set(shownValue(v.Elem()))
		}
	}
	return out
}

func count(n int64) string { return humanize.Comma(n) }
func size(n int64) string  { return humanize.IBytes(uint64(max(n, 0))) }

func percent(part, whole int64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(whole))
}
