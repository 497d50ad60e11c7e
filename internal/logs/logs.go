package logs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/time/rate"
)

// Log takes a process's lines. It is an io.Writer for those that do not come through
// slog; it never waits for its stream.
type Log struct {
	*stream
	causes *causes      // of lines below errors
	errors *causes      // apart, so that no flood hides them
	sum    slog.Handler // for what was left out
	root   slog.Handler
	ending chan struct{}
	ended  chan struct{}
}

// Options say how lines look.
type Options struct {
	Text  bool // else JSON
	Level slog.Level
}

// Start returns a log on a stream, and begins its goroutine, which ends with Close.
func Start(to io.Writer, o Options) *Log {
	l := &Log{
		stream: newStream(to), causes: newCauses(maxRate), errors: newCauses(rate.Inf),
		ending: make(chan struct{}), ended: make(chan struct{}),
	}
	options := &slog.HandlerOptions{Level: o.Level, ReplaceAttr: tidy}
	if l.sum = slog.Handler(slog.NewTextHandler(l, options)); !o.Text {
		l.sum = slog.NewJSONHandler(printable{l}, options)
	}
	l.root = &handler{Handler: l.sum, log: l}
	go l.run()
	return l
}

// Text returns a stream for what a library writes, a line at a time: each is a record
// of one message, whatever its text.
func Text(log *slog.Logger, level slog.Level, message string) io.Writer {
	return textWriter{log, level, message}
}

type textWriter struct {
	log     *slog.Logger
	level   slog.Level
	message string
}

func (t textWriter) Write(b []byte) (int, error) {
	t.log.Log(context.Background(), t.level, t.message, "text", bytes.TrimSpace(b)) // formatted before b is used again
	return len(b), nil
}

// printable writes lines of JSON.
type printable struct{ to io.Writer }

func (p printable) Write(line []byte) (int, error) {
	_, err := p.to.Write(JSON(line))
	return len(line), err
}

// Logger returns a logger that writes here.
func (l *Log) Logger() *slog.Logger { return slog.New(l.root) }

// Stats counts lines since the start.
type Stats struct {
	Written int64
	LeftOut int64 // since they were too many
	Lost    int64 // since the stream took none
}

// Stats counts.
func (l *Log) Stats() Stats {
	return Stats{Written: l.written.Load(), LeftOut: l.causes.total() + l.errors.total(), Lost: l.lost.Load()}
}

// StatsOf returns the counts of the log behind a logger; ok says whether it is one.
func StatsOf(log *slog.Logger) (s Stats, ok bool) {
	if h, ok := log.Handler().(*handler); ok {
		return h.log.Stats(), true
	}
	return s, false
}

// Close writes what waits, and what was left out, and returns when that is done, or
// after a while. It is called once; lines that come later are lost.
func (l *Log) Close(within time.Duration) {
	close(l.ending)
	select {
	case <-l.ended:
	case <-time.After(within):
	}
}

// run writes until Close.
func (l *Log) run() {
	defer close(l.ended)
	tick := time.NewTicker(sumEvery)
	defer tick.Stop()
	var buf []byte
	var told int64 // of the lines that were lost
	for ending := false; !ending; {
		select {
		case <-l.more:
		case <-tick.C:
			l.sumUp()
			if lost := l.lost.Load(); lost > told {
				l.tell(slog.LevelWarn, "lines of this log were lost: its stream took none", slog.Int64("lines", lost-told))
				told = lost
			}
		case <-l.ending:
			l.sumUp()
			ending = true
		}
		buf = l.write(buf)
	}
}

// sumUp writes a line for each cause of which lines were left out.
func (l *Log) sumUp() {
	for _, t := range append(l.errors.sums(), l.causes.sums()...) {
		message := fmt.Sprintf("… and %s more like it in the last %v: %s", humanize.Comma(int64(t.leftOut)), sumEvery, t.message)
		l.tell(t.level, message, append(t.about, slog.Int("left_out", t.leftOut))...)
	}
}

func (l *Log) tell(level slog.Level, message string, attrs ...slog.Attr) {
	r := slog.NewRecord(time.Now(), level, message, 0)
	r.AddAttrs(attrs...)
	_ = l.sum.Handle(context.Background(), r) // the stream takes all
}

// handler leaves out lines that are too many.
type handler struct {
	slog.Handler
	log  *Log
	with []slog.Attr // of With, that name what lines are about
}

// Handle writes a record, or counts it.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	of := h.log.causes
	if r.Level >= slog.LevelError {
		of = h.log.errors
	}
	if r.Level >= slog.LevelInfo && !of.admit(&r, h.with) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs keeps the counts.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := slices.Clip(h.with)
	for _, a := range attrs {
		if _, ok := subject(a); ok {
			with = append(with, a)
		}
	}
	return &handler{h.Handler.WithAttrs(attrs), h.log, with}
}

// WithGroup keeps the counts.
func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.Handler.WithGroup(name), h.log, h.with}
}
