package origin

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/loader"
)

// health follows one use of an origin: its loads, its writes, or its listings. The log has
// the first failure, then at most one line per minute that counts the failures since, and
// the recovery. A use that fails and recovers several times within a minute gets the lines
// of one time; the next line about a failure counts those without one.
//
// The log has the error itself. STATS has a text that apps may read.
type health struct {
	node  string       // this host
	log   *slog.Logger // knows the namespace and the kind of the origin
	words healthWords

	mu       sync.Mutex
	row      int64     // failures since the last success
	since    time.Time // the first of them
	last     time.Time // the last failure, also one before the last success
	kind     string    // of the last failure; see manner
	why      string    // of the last failure, for STATS
	told     time.Time // the last line about a failure
	text     string    // of that line
	untold   int64     // failures since that line
	open     bool      // the log has a failure of this row, and must have its end
	breaker  string    // the last state in the log; "" is closed
	openings int64     // of the breaker, before the one in the log
}

// healthWords are the messages about one use.
type healthWords struct{ calls, failed, still, again string }

var (
	loadWords = healthWords{
		"loads", "a load failed", "loads from an origin still fail", "loads from an origin succeed again",
	}
	writeWords = healthWords{
		"writes", "a write to an origin failed", "writes to an origin still fail", "writes to an origin succeed again",
	}
	filterWords = healthWords{
		"listings", "the filter of existing keys was not built", "the filter of existing keys still cannot be built",
		"the filter of existing keys is built again",
	}
	checkWords = healthWords{
		"checks", "an origin does not say that the settings fit it: it is asked again",
		"an origin still does not say that the settings fit it", "an origin says that the settings fit it",
	}
)

// sumEvery is the least time between two lines about failures of one use.
const sumEvery = time.Minute

// succeeded notes a call that the origin has answered.
func (h *health) succeeded() {
	h.mu.Lock()
	n, lasted, tell := h.row, time.Since(h.since), h.open
	h.row, h.open = 0, false
	h.mu.Unlock()
	if tell {
		h.log.Info(h.words.again, "failures", n, "lasted", lasted.Round(time.Millisecond))
	}
}

// failed notes a call that has failed. kind and why are for STATS. It returns a text that says
// which line of the log has the error itself.
func (h *health) failed(err error, kind, why string) (line string) {
	h.mu.Lock()
	now := time.Now()
	if h.row == 0 {
		h.since = now
	}
	h.row++
	h.untold++
	h.last, h.kind, h.why = now, kind, why
	if !h.told.IsZero() && now.Sub(h.told) < sumEvery {
		defer h.mu.Unlock()
		return h.line()
	}
	h.text = h.words.failed
	if h.open {
		h.text = h.words.still
	}
	text, n, row, lasting := h.text, h.untold, h.row, now.Sub(h.since)
	h.told, h.untold, h.open = now, 0, true
	line = h.line()
	h.mu.Unlock()
	if n == 1 && row == 1 {
		h.log.Warn(text, "error", err)
		return line
	}
	h.log.Warn(text, "failures", n, "in_a_row", row, "lasting", lasting.Round(time.Millisecond), "error", err)
	return line
}

// line says where the last line about a failure is. The lock is held.
func (h *health) line() string {
	return fmt.Sprintf("; the log of host %s has its words: look for %q at %s",
		h.node, h.text, h.told.Format(time.RFC3339))
}

// sees notes the state of the breaker. The log has each opening of a closed breaker, the
// first time that it is half-open then, and its closing, which counts the openings.
func (h *health) sees(g *loader.Guard) {
	h.mu.Lock()
	// Under the lock, so that an older state never follows a newer one.
	now, opened := g.Breaker(), g.Counts.Opened.Load()
	before := h.breaker
	var tell func()
	switch {
	case now == "closed" && before != "":
		n := opened - h.openings
		h.breaker = ""
		tell = func() { h.log.Info("the breaker before an origin closed", "openings", n) }
	case now != "closed" && before == "":
		h.breaker, h.openings = "open", opened-1
		row, why := h.row, h.why
		tell = func() {
			h.log.Warn("the breaker before an origin opened: loads are refused", "failures", row, "error", why)
		}
	case now == "half-open" && before == "open":
		h.breaker = now
		tell = func() { h.log.Info("the breaker before an origin is half-open: the next load tries the origin") }
	}
	h.mu.Unlock()
	if tell != nil {
		tell()
	}
}

// stats returns the last failure, and the failures since the last success.
func (h *health) stats() cachesidecar.FailureStats {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := cachesidecar.FailureStats{Calls: h.words.calls, Error: h.why, InARow: h.row, Failing: map[string]int64{}}
	if h.row > 0 {
		f.Failing[h.kind] = 1
	}
	if f.Error != "" {
		f.AgeMS = max(1, time.Since(h.last).Milliseconds())
	}
	return f
}

// Failures returns the failures of each kind of calls of the origin.
func (o *Origin) Failures() (list []cachesidecar.FailureStats) {
	for _, h := range []*health{o.loads, o.writes, o.lists, o.checks} {
		if h != nil {
			list = append(list, h.stats())
		}
	}
	return list
}
