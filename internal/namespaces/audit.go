package namespaces

import (
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/cachesidecar/cachesidecar"
)

// With audit a share of a namespace's hits is compared with the origin, in the background, so that
// a team sees in figures of its own how often it reads what has changed at the origin without an
// announcement. Package engine compares.

// Bounds of the audit of a namespace on a host.
const (
	AuditRate  = 100 // comparisons a second; a tenth of limits.rate, if that is less
	AuditCalls = 64  // comparisons under way, most of which wait to look again
)

// auditAges are the bounds of the ages by which differences are counted; there is one more count,
// of greater ages.
var auditAges = [...]time.Duration{time.Second, 10 * time.Second, time.Minute, 10 * time.Minute}

// Audit is the audit of a namespace. It outlives reloads.
type Audit struct {
	// Same counts cached values that the origin has too, Settled those that differed and were not
	// served any more one bound later, Failed those that the origin gave no answer for, and Skipped
	// hits that were chosen and not compared.
	Same, Settled, Failed, Skipped atomic.Int64

	differed [len(auditAges) + 1]atomic.Int64 // by their age
	underWay atomic.Int64
	rate     rate.Limiter
	Turn     *semaphore.Weighted // of a call of the origin: there is one at a time
	lines    rate.Sometimes      // of the log
}

// aim sets how often the audit may ask the origin. perSecond is limits.rate; zero: no limit.
func (a *Audit) aim(perSecond float64) {
	if a.Turn == nil { // nothing is compared yet
		a.Turn, a.lines.Interval = semaphore.NewWeighted(1), time.Minute
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

// Begin reports whether a comparison may begin now. The caller must call End after it.
func (a *Audit) Begin() bool {
	if a.underWay.Add(1) <= AuditCalls && a.rate.Allow() {
		return true
	}
	a.underWay.Add(-1)
	a.Skipped.Add(1)
	return false
}

// End ends a comparison.
func (a *Audit) End() { a.underWay.Add(-1) }

// Differed counts a cached value that differs from the origin's. It calls log for one such value a
// minute.
func (a *Audit) Differed(age time.Duration, log func()) {
	i := 0
	for i < len(auditAges) && age > auditAges[i] {
		i++
	}
	a.differed[i].Add(1)
	a.lines.Do(log)
}

// AuditStats returns the audit's part of STATS.
func (ns *Namespace) AuditStats() (s cachesidecar.AuditStats) {
	a := &ns.Audit
	s = cachesidecar.AuditStats{
		Configured: ns.AuditChance > 0, Same: a.Same.Load(), Settled: a.Settled.Load(), Failed: a.Failed.Load(),
		Skipped: a.Skipped.Load(), UnderWay: a.underWay.Load(),
	}
	for i, n := range []*int64{&s.UpTo1s, &s.UpTo10s, &s.UpTo1m, &s.UpTo10m, &s.Longer} {
		*n = a.differed[i].Load()
		s.Differed += *n
	}
	return s
}
