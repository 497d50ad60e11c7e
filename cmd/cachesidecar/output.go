package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/cachesidecar/cachesidecar/internal/logs"
)

// show prints a command's result: one document with --json, else text.
func (p *program) show(c *cli.Context, document any, text string) error {
	if c.Bool("json") {
		return writeJSON(p.out, document, "  ")
	}
	_, err := io.WriteString(p.out, text)
	return err
}

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

// sanitizedf is fmt.Sprintf whose texts are fit for a terminal. Names of hosts, and what is wrong with them, come
// from other hosts, which may not be trusted.
func sanitizedf(format string, args ...any) string {
	for i, a := range args {
		if text, ok := a.(string); ok {
			args[i] = logs.Plain(text)
		}
	}
	return fmt.Sprintf(format, args...)
}

func millis(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
