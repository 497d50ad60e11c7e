package record

import "fmt"

// Parts of the measurement of invalidations.
const (
	Stream = "stream" // a key is overwritten again and again, while other keys are too
	Hang   = "hang"   // a link passes nothing any more, and no error is reported
)

// Fanout is a side of Stream: processes that only notify each other of writes.
const Fanout = "fanout"

// Sides of Hang, besides Sidecar: clients of redis that keep copies.
const (
	NoPings = "no-pings" // drops its copies when the connection ends
	Usual   = "rueidis"  // also pings, as the library does by default
	Careful = "careful"  // the same with shorter times
)

// PropagationParameters are the parameters of invalidations.
type PropagationParameters struct {
	Data          // that is overwritten, besides the watched keys
	Rounds  int   `json:"rounds"`
	Hosts   int   `json:"hosts"`
	Rate    int   `json:"rate"` // writes a second, in all
	Seconds int   `json:"seconds"`
	Short   int   `json:"short_seconds"` // at a tenth of Rate, and at ten times Rate
	EveryMS int   `json:"probe_every_ms"`
	Bound   int   `json:"max_staleness_ms"` // of the sidecars
	Hangs   int   `json:"hangs"`
	HangFor int   `json:"hang_seconds"`
	Limit   int64 `json:"limit_bytes"`
}

// PropagationRow is one round of one part.
type PropagationRow struct {
	Part    string                `json:"part"`
	Round   int                   `json:"round"`
	Rate    int                   `json:"rate,omitempty"` // the requested rate
	Streams map[string]StreamSide `json:"streams,omitempty"`
	Hangs   map[string]HangSide   `json:"hangs,omitempty"`
}

// StreamSide is the result of the overwrites of watched keys. Delays are in µs, at each
// of Percentiles, and count from the answer to the writer.
type StreamSide struct {
	Writes  int64   `json:"writes"`
	Seconds float64 `json:"seconds"`
	Probes  int64   `json:"probes"`
	Pairs   int64   `json:"pairs"`   // of a probe and a watcher
	NoCopy  int64   `json:"no_copy"` // pairs that do not count: no copy
	// Early are pairs that saw it before the writer was answered. They count as 0.
	Early  int64     `json:"early"`
	PairUS []float64 `json:"pair_us"`
	AllUS  []float64 `json:"all_us"` // of the last watcher of each probe
	// Sums over all sidecars.
	Gaps   int64 `json:"gaps,omitempty"`
	Resets int64 `json:"resets,omitempty"`
	Missed int64 `json:"polls_missed,omitempty"`
}

// PerSecond returns the writes a second.
func (s StreamSide) PerSecond() float64 { return float64(s.Writes) / s.Seconds }

// HangSide is the result of one reader's reads after a key was overwritten beyond the
// hanging link.
type HangSide struct {
	Reads  int64 `json:"reads"`
	Old    int64 `json:"old"` // reads that returned the overwritten value
	Misses int64 `json:"misses"`
	Errors int64 `json:"errors"`
	// OldMS is when the last read that returned the old value began, counted from the
	// answer to the writer.
	OldMS float64 `json:"old_ms"`
}

// Kept returns a folder's rows, to which rows of the same commit can be added.
func Kept(dir string) ([]PropagationRow, error) {
	f, err := Read[PropagationParameters, PropagationRow](dir, Propagation)
	if err == nil && f.Commit != Commit() {
		err = fmt.Errorf("the rounds of %s are of commit %s, and this is %s: measure all of them again", Propagation, f.Commit, Commit())
	}
	return f.Rows, err
}

// After appends rows to kept, as further rounds.
func After(kept, rows []PropagationRow) []PropagationRow {
	rounds := map[string]int{}
	for _, r := range kept {
		rounds[r.Part] = max(rounds[r.Part], r.Round)
	}
	for i := range rows {
		rows[i].Round += rounds[rows[i].Part]
	}
	return append(kept, rows...)
}
