package logs

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"log/slog"
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
	maxCauses = 512         // causes counted separately; the others share one count
	maxRate   = 10          // lines per second, without errors and summaries
	maxBurst  = 100         // lines, after a pause
	sumEvery  = 10 * time.Second
	maxSums   = 20 // lines per summary; the last one covers all other causes
)

// causes counts lines by cause. It is safe for concurrent use.
type causes struct {
	seed    maphash.Seed
	rate    *rate.Limiter
	leftOut int64 // lines since the start; under mu

	mu     sync.Mutex
	m      map[uint64]*tally
	others tally // for causes that have no place in m
}

// tally counts the lines of one cause within a minute.
type tally struct {
	level   slog.Level
	message string
	about   []slog.Attr
	since   time.Time
	lines   int
	leftOut int // since the last summary
}

func newCauses(r rate.Limit) *causes {
	return &causes{seed: maphash.MakeSeed(), rate: rate.NewLimiter(r, maxBurst), m: map[uint64]*tally{}}
}

// admit counts a line and reports whether to write it.
func (c *causes) admit(r *slog.Record, with []slog.Attr) bool {
	cause := c.hash(r, with)
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.m[cause]
	if t == nil {
		t = c.beginTally(cause, r, with)
	}
	if r.Time.Sub(t.since) >= alikeFor {
		t.since, t.lines = r.Time, 0
	}
	t.lines++
	if t.lines <= maxAlike && c.rate.AllowN(r.Time, 1) {
		return true
	}
	t.leftOut++
	c.leftOut++
	return false
}

// beginTally makes the tally of a new cause. c.mu is held.
func (c *causes) beginTally(cause uint64, r *slog.Record, with []slog.Attr) *tally {
	if len(c.m) >= maxCauses {
		for k, t := range c.m {
			if r.Time.Sub(t.since) >= alikeFor && t.leftOut == 0 {
				delete(c.m, k)
			}
		}
	}
	if len(c.m) >= maxCauses {
		if c.others.since.IsZero() {
			c.others.since = r.Time
		}
		return &c.others
	}
	t := &tally{level: r.Level, message: strings.Clone(short(r.Message)), since: r.Time}
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
	c.m[cause] = t
	return t
}

// hash returns the key of a cause in the map. A collision may cost a line.
func (c *causes) hash(r *slog.Record, with []slog.Attr) uint64 {
	var h maphash.Hash
	h.SetSeed(c.seed)
	maphash.WriteComparable(&h, r.Level)
	_, _ = h.WriteString(r.Message)
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
	return h.Sum64()
}

// subject returns the value of an attribute that names the host or the namespace of a
// line. Of an address the port does not count: each connection of a client has another one.
func subject(a slog.Attr) (text string, ok bool) {
	if a.Key != "node" && a.Key != "from" && a.Key != "namespace" {
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
	}
	return "", false
}

// sums returns the lines that were left out since the last call, by cause, the highest
// number first, and resets them.
func (c *causes) sums() (list []tally) {
	c.mu.Lock()
	defer c.mu.Unlock()
	take := func(t *tally) {
		if t.leftOut > 0 {
			list = append(list, *t)
			t.leftOut = 0
		}
	}
	for _, t := range c.m {
		take(t)
	}
	slices.SortFunc(list, func(a, b tally) int {
		return cmp.Or(b.leftOut-a.leftOut, strings.Compare(a.message, b.message))
	})
	rest := c.others
	c.others.leftOut = 0
	for len(list) > maxSums-1 {
		last := list[len(list)-1]
		rest.leftOut += last.leftOut
		list = list[:len(list)-1]
	}
	if rest.leftOut > 0 {
		list = append(list, tally{level: slog.LevelWarn, message: "of other causes", leftOut: rest.leftOut})
	}
	return list
}

// sumUp writes a line for each cause that had lines left out.
func (l *Log) sumUp() {
	for _, t := range append(l.errors.sums(), l.causes.sums()...) {
		message := fmt.Sprintf("… and %s more like it in the last %v: %s",
			humanize.Comma(int64(t.leftOut)), sumEvery, t.message)
		l.tell(t.level, message, append(t.about, slog.Int("left_out", t.leftOut))...)
	}
}

func (c *causes) total() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leftOut
}
