package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"time"
)

// The log is read one line at a time, often by a machine: a value never spans
// lines, what is not known is left out, and no peer or app can fill a disk.

// How many lines of one message about one host or namespace are written a minute,
// from info up, and how many such pairs are told apart; the others share one count.
const (
	maxAlike   = 10
	alikeFor   = time.Minute
	maxMatters = 512
)

// newLogHandler writes a line of text or JSON for each record.
func newLogHandler(w io.Writer, asText bool, level slog.Level) slog.Handler {
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: tidy}
	var h slog.Handler = slog.NewJSONHandler(w, o)
	if asText {
		h = slog.NewTextHandler(w, o)
	}
	return &limited{Handler: h, counts: &alike{m: map[string]*tally{}}}
}

// tidy folds a value to one line, writes times of the clock as people do, and drops
// what is empty.
func tidy(_ []string, a slog.Attr) slog.Attr {
	switch v := a.Value; v.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(oneLine(v.String()))
	case slog.KindDuration:
		a.Value = slog.StringValue(v.Duration().String())
	case slog.KindAny:
		if empty(v.Any()) {
			return slog.Attr{}
		}
		switch x := v.Any().(type) {
		case error:
			a.Value = slog.StringValue(oneLine(x.Error()))
		case fmt.Stringer:
			a.Value = slog.StringValue(oneLine(x.String()))
		}
		if s := reflect.ValueOf(v.Any()); s.Kind() == reflect.String {
			a.Value = slog.StringValue(oneLine(s.String()))
		}
	}
	if a.Value.Kind() == slog.KindString && a.Value.String() == "" {
		return slog.Attr{}
	}
	return a
}

func empty(v any) bool {
	if v == nil {
		return true
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Func, reflect.Chan:
		return r.IsNil()
	case reflect.Slice, reflect.Map:
		return r.Len() == 0
	}
	return false
}

// oneLine joins the lines of a text.
func oneLine(s string) string {
	if !strings.ContainsAny(s, "\n\r\v\f\u0085\u2028\u2029") {
		return s
	}
	var lines []string
	for _, line := range strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune("\n\r\v\f\u0085\u2028\u2029", r) }) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}

// limited is a handler that leaves out lines that are too many alike, and says with
// the next one how many.
type limited struct {
	slog.Handler
	counts *alike
	about  string // what With has said of the host or namespace
}

// alike counts lines. It is safe for concurrent use.
type alike struct {
	mu sync.Mutex
	m  map[string]*tally
}

// tally counts the lines of one matter within a minute.
type tally struct {
	since   time.Time
	lines   int
	leftOut int
}

// Handle writes a record, or counts it.
func (l *limited) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelInfo {
		return l.Handler.Handle(ctx, r)
	}
	about := l.about
	r.Attrs(func(a slog.Attr) bool { about += subject(a); return true })
	leftOut, ok := l.counts.add(r.Message+" "+about, r.Time)
	if !ok {
		return nil
	}
	if leftOut > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("left_out", leftOut))
	}
	return l.Handler.Handle(ctx, r)
}

// WithAttrs keeps the counts.
func (l *limited) WithAttrs(attrs []slog.Attr) slog.Handler {
	about := l.about
	for _, a := range attrs {
		about += subject(a)
	}
	return &limited{l.Handler.WithAttrs(attrs), l.counts, about}
}

// WithGroup keeps the counts.
func (l *limited) WithGroup(name string) slog.Handler {
	return &limited{l.Handler.WithGroup(name), l.counts, l.about}
}

// subject is the value of an attribute that names a host or a namespace.
func subject(a slog.Attr) string {
	if a.Key == "node" || a.Key == "from" || a.Key == "namespace" {
		return a.Value.String() + " "
	}
	return ""
}

// add counts a line, and says whether it is to be written, and how many were left
// out before it.
func (c *alike) add(matter string, now time.Time) (leftOut int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.m[matter]
	if n == nil {
		if len(c.m) >= maxMatters {
			c.forget(now)
		}
		if len(c.m) >= maxMatters {
			matter = ""
			n = c.m[matter]
		}
		if n == nil {
			n = &tally{since: now}
			c.m[matter] = n
		}
	}
	if now.Sub(n.since) >= alikeFor {
		leftOut = n.leftOut
		*n = tally{since: now}
	}
	if n.lines++; n.lines > maxAlike {
		n.leftOut++
		return 0, false
	}
	return leftOut, true
}

// forget drops the matters of which there was no line for a while. The lock is held.
func (c *alike) forget(now time.Time) {
	for matter, n := range c.m {
		if now.Sub(n.since) >= alikeFor {
			delete(c.m, matter)
		}
	}
}
