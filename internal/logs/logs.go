package logs

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar"
)

// Log writes a process's log. It is an io.Writer for lines that do not come through slog.
// It never waits for its stream.
type Log struct {
	*stream
	events *events
	sum    slog.Handler // for summaries
	root   slog.Handler
	ending chan struct{}
	ended  chan struct{}
	level  slog.LevelVar
}

// SetLevel changes the least level that is logged.
func (l *Log) SetLevel(level slog.Level) { l.level.Set(level) }

// Options configure the format of lines.
type Options struct {
	Text  bool // false: JSON
	Level slog.Level
}

// Start returns a log that writes to a stream, and starts its goroutine, which ends with
// Close.
func Start(to io.Writer, o Options) *Log {
	l := &Log{
		stream: newStream(to), events: newEvents(),
		ending: make(chan struct{}), ended: make(chan struct{}),
	}
	l.level.Set(o.Level)
	options := &slog.HandlerOptions{Level: &l.level, ReplaceAttr: tidy}
	if l.sum = slog.Handler(slog.NewTextHandler(l, options)); !o.Text {
		l.sum = slog.NewJSONHandler(printable{l}, options)
	}
	l.root = &handler{Handler: l.sum, log: l}
	go l.run()
	return l
}

// Text returns a writer for the output of a library, one line per write. Each line
// becomes a record with the same message and the line as its text.
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

// printable makes lines of JSON printable.
type printable struct{ to io.Writer }

func (p printable) Write(line []byte) (int, error) {
	_, err := p.to.Write(JSON(line))
	return len(line), err
}

// Logger returns a logger that writes to this log.
func (l *Log) Logger() *slog.Logger { return slog.New(l.root) }

// Stats returns the counts of lines since the start.
func (l *Log) Stats() cachesidecar.LogStats {
	return cachesidecar.LogStats{
		Bounded: true, Written: l.written.Load(), LeftOut: l.events.total(), Lost: l.lost.Load(),
	}
}

// StatsOf returns the counts of the log behind a logger; zero if that is no Log.
func StatsOf(log *slog.Logger) (s cachesidecar.LogStats) {
	if h, ok := log.Handler().(*handler); ok {
		s = h.log.Stats()
	}
	return s
}

// Close writes the waiting lines and a summary, and returns when that is done, but at the
// latest after within. It is called once; later lines are lost.
func (l *Log) Close(within time.Duration) {
	close(l.ending)
	select {
	case <-l.ended:
	case <-time.After(within):
	}
}

// run writes lines until Close.
func (l *Log) run() {
	defer close(l.ended)
	tick := time.NewTicker(sumEvery)
	defer tick.Stop()
	var buf []byte
	var told int64 // lost lines that were reported
	for ending := false; !ending; {
		select {
		case <-l.more:
		case <-tick.C:
			l.sumUp()
			if lost := l.lost.Load(); lost > told {
				l.tell(slog.LevelWarn, "lines of this log were lost: its stream took none",
					slog.Int64("lines", lost-told))
				told = lost
			}
		case <-l.ending:
			l.sumUp()
			ending = true
		}
		buf = l.write(buf)
	}
}

func (l *Log) tell(level slog.Level, message string, attrs ...slog.Attr) {
	r := slog.NewRecord(time.Now(), level, message, 0)
	r.AddAttrs(attrs...)
	_ = l.sum.Handle(context.Background(), r) // the stream accepts every line
}

// handler leaves out lines above the limits.
type handler struct {
	slog.Handler
	log  *Log
	with []slog.Attr // the subjects among the attributes of With
}

// Handle writes a record, or counts it as left out.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo && !h.log.events.admit(&r, h.with) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs returns a handler that shares the counts.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := slices.Clip(h.with)
	for _, a := range attrs {
		if _, ok := subject(a); ok {
			with = append(with, a)
		}
	}
	return &handler{h.Handler.WithAttrs(attrs), h.log, with}
}

// WithGroup returns a handler that shares the counts.
func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.Handler.WithGroup(name), h.log, h.with}
}
