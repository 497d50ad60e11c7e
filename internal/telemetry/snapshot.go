package telemetry

import (
	"math"

	dto "github.com/prometheus/client_model/go"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Snapshot is what the status page shows of one moment.
type Snapshot struct {
	Stats   cachesidecar.Stats
	Members []cachesidecar.Member
	Reads   Reads
	Batches []Bucket // the shortest first; the last one has no bound
}

// Reads counts the keys that apps of this host have read, by where they were answered.
type Reads struct {
	Own, Copies, Peers, Shared, Near, Origin, Stale, Missing, Failed int64
}

// Hits returns the reads of values that were in the cache, here, at their owners or in apps.
func (r *Reads) Hits() int64 { return r.Own + r.Copies + r.Peers + r.Shared + r.Near }

// Total returns all reads.
func (r *Reads) Total() int64 { return r.Hits() + r.Origin + r.Stale + r.Missing + r.Failed }

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
	for _, ns := range s.Engine.Names.All() {
		t.Reads.add(ns)
	}
	t.Reads.add(s.Engine.Names.None)
	return t, true
}

// add adds the reads of a namespace.
func (r *Reads) add(ns *namespaces.Namespace) {
	for _, op := range []wire.Op{wire.OpGet, wire.OpMGet, wire.OpLease, wire.OpMetaGet} {
		n := &ns.Counts[op]
		r.Own += n[namespaces.HitL2].Load()
		r.Copies += n[namespaces.HitL1].Load()
		r.Peers += n[namespaces.HitPeer].Load()
		r.Shared += n[namespaces.HitShared].Load()
		r.Near += n[namespaces.HitNear].Load()
		r.Origin += n[namespaces.Loaded].Load()
		r.Stale += n[namespaces.Stale].Load()
		r.Missing += n[namespaces.Miss].Load() + n[namespaces.MissShared].Load()
		r.Failed += n[namespaces.Failed].Load()
	}
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
