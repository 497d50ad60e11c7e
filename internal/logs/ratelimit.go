package logs

import (
	"fmt"
	"hash/maphash"
	"log/slog"
	"maps"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/time/rate"
)

// Limits of the log's output.
const (
	maxAlike  = 10          // lines per cause and minute
	alikeFor  = time.Minute // the time over which they are counted
	maxCauses = 64          // of an event, counted separately; its others share one count
	maxRate   = 0.5         // lines of an event per second, without errors and summaries
	maxBurst  = 50          // lines of an event, after a pause
	maxEvents = 256         // more than the messages of the program; beyond that a level has one budget
	sumEvery  = 10 * time.Second
	maxSums   = 4 // lines of an event per summary; the last one covers all its other causes
)

// events counts lines by event, which is a level and a message. Each event has a budget of its own, so that the
// flood of one hides no other. It is safe for concurrent use.
type events struct {
	seed maphash.Seed

	mu      sync.Mutex
	m       map[uint64]*event
	leftOut int64 // lines since the start
}

// event counts the lines of an event by cause: by the host, the namespace or the user that they are about.
type event struct {
	level   slog.Level
	message string
	rate    *rate.Limiter
	m       map[uint64]*tally
	others  tally // for causes that have no place in m
}

// tally counts the lines of one cause within a minute.
type tally struct {
	of      *event
	about   []slog.Attr
	since   time.Time
	lines   int
	leftOut int // since the last summary
}

func newEvents() *events { return &events{seed: maphash.MakeSeed(), m: map[uint64]*event{}} }

// admit counts a line and reports whether to write it.
func (es *events) admit(r *slog.Record, with []slog.Attr) bool {
	key, cause := es.hash(r, with)
	es.mu.Lock()
	defer es.mu.Unlock()
	e := es.findEvent(key, r)
	t := e.findTally(cause, r, with)
	if r.Time.Sub(t.since) >= alikeFor {
		t.since, t.lines = r.Time, 0
	}
	t.lines++
	if t.lines <= maxAlike && e.rate.AllowN(r.Time, 1) {
		return true
	}
	t.leftOut++
	es.leftOut++
	return false
}

// findEvent returns the event of a line. es.mu is held.
func (es *events) findEvent(key uint64, r *slog.Record) *event {
	if e := es.m[key]; e != nil {
		return e
	}
	message := strings.Clone(short(r.Message))
	if len(es.m) >= maxEvents {
		maps.DeleteFunc(es.m, func(_ uint64, e *event) bool { return e.dropOver(r.Time) })
	}
	if len(es.m) >= maxEvents {
		if key, message = uint64(r.Level), "of other events"; es.m[key] != nil {
			return es.m[key]
		}
	}
	e := &event{level: r.Level, message: message, rate: rate.NewLimiter(maxRate, maxBurst), m: map[uint64]*tally{}}
	if r.Level >= slog.LevelError {
		e.rate.SetLimit(rate.Inf)
	}
	e.others.of = e
	es.m[key] = e
	return e
}

// dropOver drops the causes that are over, and reports whether the event is.
func (e *event) dropOver(now time.Time) bool {
	over := func(t *tally) bool { return now.Sub(t.since) >= alikeFor && t.leftOut == 0 }
	maps.DeleteFunc(e.m, func(_ uint64, t *tally) bool { return over(t) })
	return len(e.m) == 0 && over(&e.others)
}

// findTally returns the tally of a line's cause. events.mu is held.
func (e *event) findTally(cause uint64, r *slog.Record, with []slog.Attr) *tally {
	if t := e.m[cause]; t != nil {
		return t
	}
	if len(e.m) >= maxCauses {
		e.dropOver(r.Time)
	}
	if len(e.m) >= maxCauses {
		return &e.others
	}
	t := &tally{of: e, since: r.Time}
	keep := func(a slog.Attr) bool {
		if text, ok := subject(a); ok {
			t.about = append(t.about, slog.String(a.Key, strings.Clone(short(text))))
		}
		return true
	}
	for _, a := range with {
		keep(a)
	}
	r.Attrs(keep)
	e.m[cause] = t
	return t
}

// hash returns the keys of a line's event and cause. A collision may cost a line.
func (es *events) hash(r *slog.Record, with []slog.Attr) (event, cause uint64) {
	var h maphash.Hash
	h.SetSeed(es.seed)
	maphash.WriteComparable(&h, r.Level)
	_, _ = h.WriteString(r.Message)
	event = h.Sum64()
	add := func(a slog.Attr) bool {
		if text, ok := subject(a); ok {
			_ = h.WriteByte(0)
			_, _ = h.WriteString(text)
		}
		return true
	}
	for _, a := range with {
		add(a)
	}
	r.Attrs(add)
	return event, h.Sum64()
}

// subject returns the value of an attribute that names the host, the namespace or the user of a line. Never the
// text of a request: a requester would make as many causes as it likes. Of an address the port does not count: each
// connection of a client has another one.
func subject(a slog.Attr) (text string, ok bool) {
	if a.Key != "node" && a.Key != "from" && a.Key != "namespace" && a.Key != "uid" {
		return "", false
	}
	switch a.Value.Kind() {
	case slog.KindString:
		text = a.Value.String()
		if a.Key == "from" && strings.Contains(text, ":") {
			if host, _, err := net.SplitHostPort(text); err == nil {
				return host, true
			}
		}
		return text, true
	case slog.KindAny:
		if v := reflect.ValueOf(a.Value.Any()); v.Kind() == reflect.String {
			return v.String(), true
		}
	case slog.KindInt64, slog.KindUint64:
		return a.Value.String(), true
	}
	return "", false
}

// sums returns the lines that were left out since the last call, by cause, and resets them.
func (es *events) sums() (list []tally) {
	es.mu.Lock()
	defer es.mu.Unlock()
	for _, e := range es.m {
		list = append(list, e.sums()...)
	}
	return list
}

// sums returns those of an event, the highest number first.
func (e *event) sums() (list []tally) {
	rest := e.others
	e.others.leftOut = 0
	for _, t := range e.m {
		if t.leftOut > 0 {
			list = append(list, *t)
			t.leftOut = 0
		}
	}
	slices.SortFunc(list, func(a, b tally) int { return b.leftOut - a.leftOut })
	for len(list) > maxSums-1 {
		last := len(list) - 1
		rest.leftOut += list[last].leftOut
		list = list[:last]
	}
	if rest.leftOut > 0 {
		list = append(list, rest)
	}
	return list
}

// sumUp writes a line for each cause that had lines left out.
func (l *Log) sumUp() {
	for _, t := range l.events.sums() {
		message := fmt.Sprintf("… and %s more like it in the last %v: %s",
			humanize.Comma(int64(t.leftOut)), sumEvery, t.of.message)
		l.tell(t.of.level, message, append(t.about, slog.Int("left_out", t.leftOut))...)
	}
}

func (es *events) total() int64 {
	es.mu.Lock()
	defer es.mu.Unlock()
	return es.leftOut
}
