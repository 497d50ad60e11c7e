package namespaces

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// With audit a share of a namespace's hits is compared with the origin, in the background, so that
// a team sees in figures of its own how often it reads what has changed at the origin without an
// announcement. A hit is only chosen by its request; the rest follows in the background:
//
//	look       what is cached for the key now, here: this host's own entry, or its copy
//	load       what the origin has, within its limits; the result is kept nowhere
//	differs    the same once more, after the bound and replica_lag
//	counts     if the value of the first look is still cached then, and still differs
//
// So a change that was announced in time is no difference, nor is a lag of the origin that is
// configured.

// Bounds of the audit of a namespace on a host.
const (
	AuditRate  = 100              // comparisons a second; a tenth of limits.rate, if that is less
	AuditCalls = 64               // comparisons under way, most of which wait to look again
	auditTime  = 30 * time.Second // of one load of an audit, with its waits
)

// auditAges are the bounds of the ages by which differences are counted; there is one more count,
// of greater ages.
var auditAges = [...]time.Duration{time.Second, 10 * time.Second, time.Minute, 10 * time.Minute}

// audit is the audit of a namespace. It outlives reloads.
type audit struct {
	same    atomic.Int64 // cached values that the origin has too
	settled atomic.Int64 // those that differed and were not served any more one bound later
	failed  atomic.Int64 // those that the origin gave no answer for
	skipped atomic.Int64 // hits that were chosen and not compared

	differed [len(auditAges) + 1]atomic.Int64 // by their age
	underWay atomic.Int64
	rate     rate.Limiter
	turn     *semaphore.Weighted // of a call of the origin: there is one at a time
	lines    rate.Sometimes      // of the log
}

// aim sets how often the audit may ask the origin. perSecond is limits.rate; zero: no limit.
func (a *audit) aim(perSecond float64) {
	if a.turn == nil { // nothing is compared yet
		a.turn, a.lines.Interval = semaphore.NewWeighted(1), time.Minute
	}
	limit := rate.Limit(AuditRate)
	if perSecond > 0 {
		limit = min(limit, rate.Limit(perSecond/10))
	}
	a.rate.SetLimit(limit)
	a.rate.SetBurst(1)
}

// auditChance returns the chance of a hit to be compared, in parts of 2^32.
func auditChance(share float64) uint64 { return uint64(math.Ceil(share * (1 << 32))) }

// choice is a hit that is to be compared.
type choice struct {
	ns  *Namespace
	key kv.Key // its bytes are the choice's own
}

// Audits is the audits of all namespaces of a host.
type Audits struct {
	choices chan choice
	parts   *Parts
	clock   kv.Clock
	log     *slog.Logger
	bound   func(kv.NamespaceID) time.Duration // of staleness, in a slot
}

// AuditsHits reports whether hits are to be compared with the origin.
func (ns *Namespace) AuditsHits() bool { return ns.auditChance > 0 }

// ChooseHits chooses some of a number of hits of a key at random, by the namespace's setting.
func (x *Audits) ChooseHits(ns *Namespace, k kv.Key, hits uint32) {
	a := &ns.audit
	if uint64(rand.Uint32()) >= ns.auditChance*uint64(hits) {
		return
	}
	if a.underWay.Add(1) <= AuditCalls && a.rate.Allow() {
		k.Bytes = bytes.Clone(k.Bytes)
		select {
		case x.choices <- choice{ns, k}:
			return
		default:
		}
	}
	a.underWay.Add(-1)
	a.skipped.Add(1)
}

// CompareHits compares hits that were chosen with their origins until ctx ends.
func (x *Audits) CompareHits(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()
	for {
		select {
		case h := <-x.choices:
			group.Go(func() {
				defer h.ns.audit.underWay.Add(-1)
				x.compare(ctx, h)
			})
		case <-ctx.Done():
			return
		}
	}
}

// compare compares the value of a key with the origin's, and counts the result.
func (x *Audits) compare(ctx context.Context, h choice) {
	a := &h.ns.audit
	first, err := x.look(ctx, h)
	switch {
	case err == nil && !first.differs:
		a.same.Add(1)
		return
	case err == nil:
		if !kv.Sleep(ctx, x.bound(h.ns.ID)+h.ns.Now().ReplicaLag) {
			return
		}
		var again sight
		if again, err = x.look(ctx, h); errors.Is(err, ErrNotCached) || err == nil && again != first {
			a.settled.Add(1)
			return
		}
	}
	switch {
	case ctx.Err() != nil:
	case err == nil:
		x.differs(h, x.clock.Read().Time().Sub(first.version.Wall()))
	case errors.Is(err, ErrNotCached), errors.Is(err, loader.ErrBusy), errors.Is(err, loader.ErrBadKey):
		a.skipped.Add(1)
	default:
		a.failed.Add(1)
	}
}

// differs counts a cached value that differs from the origin's. One such value a minute is logged.
func (x *Audits) differs(h choice, age time.Duration) {
	i := 0
	for i < len(auditAges) && age > auditAges[i] {
		i++
	}
	h.ns.audit.differed[i].Add(1)
	h.ns.audit.lines.Do(func() {
		x.log.Info("a cached value differs from the origin's, and no change of it was announced",
			"namespace", h.ns.Name, "key", string(h.key.Bytes), "cached_for", age)
	})
}

// sight is what a look has found.
type sight struct {
	version kv.Version // of the cached value
	differs bool       // the origin has another value, or none
}

// ErrNotCached means that there is nothing to compare.
var ErrNotCached = errors.New("the key is not cached here")

// look compares what is cached for a key now with what the origin has.
func (x *Audits) look(ctx context.Context, h choice) (s sight, err error) {
	if err := h.ns.audit.turn.Acquire(ctx, 1); err != nil {
		return s, err
	}
	defer h.ns.audit.turn.Release(1)
	ns := h.ns.Now()
	if ns.Origin == nil || ns.Keys.Check(h.key.Bytes) != nil || !ns.Origin.Guard.Spare() ||
		ns.Writing(h.key.Hash) {
		return s, loader.ErrBusy
	}
	cached, theirs := loader.Reservation{Memory: x.parts.Memory}, loader.Reservation{Memory: x.parts.Memory}
	defer cached.Free()
	defer theirs.Free()
	value, absent, version, err := x.parts.Cached(h.key, &cached)
	if err != nil {
		return s, err
	}
	ctx, cancel := context.WithTimeout(ctx, auditTime)
	defer cancel()
	v, err := ns.Load(ctx, h.key.Bytes)
	if err == nil {
		err = theirs.Take(len(v.Bytes))
	}
	none := errors.Is(err, loader.ErrAbsent)
	if err != nil && !none {
		return s, err
	}
	return sight{version, none != absent || !none && !bytes.Equal(value, v.Bytes)}, nil
}

// AuditStats returns the audit's part of STATS.
func (ns *Namespace) AuditStats() (s cachesidecar.AuditStats) {
	a := &ns.audit
	s = cachesidecar.AuditStats{
		Configured: ns.auditChance > 0, Same: a.same.Load(), Settled: a.settled.Load(), Failed: a.failed.Load(),
		Skipped: a.skipped.Load(), UnderWay: a.underWay.Load(),
	}
	for i, n := range []*int64{&s.UpTo1s, &s.UpTo10s, &s.UpTo1m, &s.UpTo10m, &s.Longer} {
		*n = a.differed[i].Load()
		s.Differed += *n
	}
	return s
}
