package record

import "fmt"

// Parts of what is measured of invalidations.
const (
	Stream = "stream" // a key is overwritten again and again, while others are
	Hang   = "hang"   // a link passes nothing any more, and nobody is told
)

// Fanout is a side of Stream: processes that tell each other of writes, and no
// more.
const Fanout = "fanout"

// Sides of Hang, beside Sidecar: clients of redis that keep copies.
const (
	NoPings = "no-pings" // it drops them when the connection ends
	Usual   = "rueidis"  // it also pings, as the library does by itself
	Careful = "careful"  // the same with shorter times
)

// PropagationParameters are those of invalidations.
type PropagationParameters struct {
	Data          // that is overwritten, beside the keys that are watched
	Rounds  int   `json:"rounds"`
	Hosts   int   `json:"hosts"`
	Rate    int   `json:"rate"` // of writes a second, in all
	Seconds int   `json:"seconds"`
	Short   int   `json:"short_seconds"` // at a tenth of Rate, and at ten times as many
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
	Rate    int                   `json:"rate,omitempty"` // that was asked for
	Streams map[string]StreamSide `json:"streams,omitempty"`
	Hangs   map[string]HangSide   `json:"hangs,omitempty"`
}

// StreamSide is what became of the overwrites of watched keys. Delays are in
// µs, at each of Percentiles, since the writer was answered.
type StreamSide struct {
	Writes  int64     `json:"writes"`
	Seconds float64   `json:"seconds"`
	Probes  int64     `json:"probes"`
	Pairs   int64     `json:"pairs"`   // of a probe and who watches
	NoCopy  int64     `json:"no_copy"` // pairs that do not count, since there was no copy
	Early   int64     `json:"early"`   // pairs that saw it before the writer was answered; they count as 0
	PairUS  []float64 `json:"pair_us"`
	AllUS   []float64 `json:"all_us"` // of the last of each probe
	// Of the sidecars, over all of them.
	Gaps   int64 `json:"gaps,omitempty"`
	Resets int64 `json:"resets,omitempty"`
	Missed int64 `json:"polls_missed,omitempty"`
}

// PerSecond is the rate of the writes.
func (s StreamSide) PerSecond() float64 { return float64(s.Writes) / s.Seconds }

// HangSide is what one that reads found after a key was overwritten beyond the
// link that hangs.
type HangSide struct {
	Reads  int64 `json:"reads"`
	Old    int64 `json:"old"` // brought what was overwritten
	Misses int64 `json:"misses"`
	Errors int64 `json:"errors"`
	// OldMS is when the last read that brought the old value began, since the
	// writer was answered.
	OldMS float64 `json:"old_ms"`
}

// Kept are the rows in a folder that others of the same commit can be added to.
func Kept(dir string) ([]PropagationRow, error) {
	f, err := Read[PropagationParameters, PropagationRow](dir, Propagation)
	if err == nil && f.Commit != Commit() {
		err = fmt.Errorf("the rounds of %s are of commit %s, and this is %s: measure all of them again", Propagation, f.Commit, Commit())
	}
	return f.Rows, err
}

// After puts rows behind others, as further rounds.
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
