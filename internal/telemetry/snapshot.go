package telemetry

import (
	"math"

	dto "github.com/prometheus/client_model/go"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
)

// Snapshot is what the status page shows of one moment.
type Snapshot struct {
	Stats   cachesidecar.Stats
	Members []cachesidecar.Member
	Tiers   []Tier
	Batches []Bucket // the shortest first; the last one has no bound
}

// Tier counts the keys that apps of this host have read, and that were answered in one place.
type Tier struct {
	Name, Meaning string
	Reads         int64
}

// tiers has the outcomes of reads, in the order of the page.
var tiers = []struct {
	name, meaning string
	outcome       namespaces.Outcome
}{
	{"own entries", "hits in this host's share of the keys (L2)", namespaces.HitL2},
	{"copies", "hits in copies of other hosts' entries (L1)", namespaces.HitL1},
	{"other hosts", "hits at the owner, over the network", namespaces.HitPeer},
	{"shared memory", "hits in the memory that apps share, as they report", namespaces.HitShared},
	{"near caches", "hits in apps' own near caches, as they report", namespaces.HitNear},
	{"origin", "values that were loaded for the read", namespaces.Loaded},
	{"stale", "stale values, for readers that accept them", namespaces.Stale},
	{"no value", "misses", namespaces.Miss},
	{"errors", "reads that failed", namespaces.Failed},
}

// Bucket counts the batches that took so long or less.
type Bucket struct {
	Seconds float64
	Count   uint64
}

// Snapshot reads all of it. It returns false once the store is closed.
func (s *Telemetry) Snapshot() (Snapshot, bool) {
	leave, ok := s.Enter()
	if !ok {
		return Snapshot{}, false
	}
	defer leave()
	t := Snapshot{Stats: s.Stats(), Members: s.Engine.Admin.Members(), Batches: s.buckets()}
	reads := s.Engine.Namespaces.None.Reads()
	for _, ns := range s.Engine.Namespaces.All() {
		for o, n := range ns.Reads() {
			reads[o] += n
		}
	}
	reads[namespaces.Miss] += reads[namespaces.MissShared]
	for _, tier := range tiers {
		t.Tiers = append(t.Tiers, Tier{tier.name, tier.meaning, reads[tier.outcome]})
	}
	return t, true
}

// buckets reads the histogram of batches.
func (s *Telemetry) buckets() (list []Bucket) {
	var m dto.Metric
	if err := s.batches.Write(&m); err != nil {
		return nil
	}
	for _, b := range m.Histogram.Bucket {
		list = append(list, Bucket{b.GetUpperBound(), b.GetCumulativeCount()})
	}
	return append(list, Bucket{math.Inf(1), m.Histogram.GetSampleCount()})
}
