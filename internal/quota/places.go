package quota

import (
	"strconv"
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Resource is one kind of place: of what is counted, and bounded for all connections of a host together.
type Resource uint8

// The kinds, and their number.
const (
	LeaseTokens Resource = iota // of apps that load missing values themselves
	Watches                     // WATCHes that wait
	Waiting                     // requests that wait
	Namespaces                  // namespaces that are not configured
	Connections                 // on the socket
	Flushes                     // names whose flush is remembered
	Descriptors                 // of the shared memory, sent and not received
	Resources

	memory = Resources // is counted beside them
	kinds  = Resources + 1
)

var resourceNames = [Resources]string{
	"lease_tokens", "watches", "waiting", "namespaces", "connections", "flushes", "descriptors",
}

var resourceTexts = [Resources]string{
	LeaseTokens: "lease tokens: FILL or abandon some, or load the key without filling it",
	Watches:     "places to watch from: watch through fewer connections, or try again",
	Waiting:     "places of requests that wait for other hosts, loads or fills: try again",
	Namespaces: "names that max_namespaces leaves to those that are not configured: " +
		"use fewer names, or configure them",
	Flushes: "names of which a flush of the cluster is remembered: flush one of those that were flushed before, " +
		"or let an administrator flush all namespaces, which forgets them",
	Descriptors: "descriptors of the shared memory that may be on their way: receive them, or ask later",
	Connections: "connections of max_connections: close some, or raise it",
}

// places are those of one kind. How many are taken, the root of the tree counts.
type places struct {
	total   atomic.Int64
	refused atomic.Int64
}

// Total returns the number of places of a kind.
func (b *Budget) Total(r Resource) int64 { return b.places[r].total.Load() }

// SetTotal changes it. Places above it stay taken until they are given back.
func (b *Budget) SetTotal(r Resource, n int64) { b.places[r].total.Store(n) }

// SetTotals sets the number of places of each kind.
func (b *Budget) SetTotals(totals [Resources]int64) {
	for r, n := range totals {
		b.SetTotal(Resource(r), n)
	}
}

// Taken returns how many places of a kind are taken.
func (b *Budget) Taken(r Resource) int64 { return b.root.has[r].Load() }

// Acquire takes a place. The error names the tenant, its number of places, and the remedy.
func (a *Account) Acquire(r Resource) *wire.Error {
	if a == nil {
		return nil
	}
	a.add(r, 1)
	if a.mayHold(r) {
		return nil
	}
	a.Release(r)
	b := a.budget
	b.places[r].refused.Add(1)
	shown := func(n int64) string { return strconv.FormatInt(n, 10) }
	return wire.Errorf(wire.Busy, "of %d places %s: %s", b.Total(r), a.holds(r, shown), resourceTexts[r])
}

// keptConnections is how many of the last connections administrators alone may take, and at most a sixteenth.
const keptConnections = 16

// mayHold says whether the account may keep the place that it has just taken.
func (a *Account) mayHold(r Resource) bool {
	total, taken := a.budget.Total(r), a.budget.Taken(r)
	if r == Connections && !a.Administers {
		total -= min(keptConnections, total/16)
	}
	last := &LastPlaces
	if r == Namespaces || r == Flushes { // an app has all its names, and has them for long
		last = &lastNames
	}
	if taken <= last.free(total) { // as mostly
		return true
	}
	shares := a.shares(r)
	return last.MayHold(total, taken, shares[:]...)
}

// Last says how the last places of a kind are kept for accounts that have few.
type Last struct {
	part      int64 // one place in so many is one of them
	has, left int64 // an account that has so many leaves so many of them, at least
}

// The last places, and the last names.
var (
	LastPlaces = Last{part: 8, has: 1, left: 8}
	lastNames  = Last{part: 4, has: 3, left: 1}
)

// Share is what an account has of a kind, and how many accounts share what there is of it, with it.
type Share struct{ Has, Holders int64 }

// MayHold says whether an account may keep a place of a kind that it has just taken, of which so many are taken now.
// The shares are its tenant's, its process's and so on. The last places come back only by themselves. So an account
// below its fair share may have one of them, and more while it has no more of the kind than a part of what it leaves
// there. Some are for the processes alone, and some of these for the tenants.
func (last *Last) MayHold(total, taken int64, shares ...Share) bool {
	free := last.free(total)
	if taken <= free {
		return true
	}
	level := fairLevel(free, shares...)
	if level < 0 {
		return false
	}
	left := total - (total-free)/4*int64(level) - taken
	return left >= 0 && (shares[level].Has-1)*last.left <= left*last.has
}

// free returns how many of some places anyone may have.
func (last *Last) free(total int64) int64 { return total - total/last.part }

// fairLevel returns the first level at which a share is fair, or a negative number: that account has no more than
// the others may have.
func fairLevel(of int64, shares ...Share) int {
	for level, s := range shares {
		if of /= max(1, s.Holders); s.Has <= of {
			return level
		}
	}
	return -1
}

// AcquireAnyway takes n places even if there are none left.
func (a *Account) AcquireAnyway(r Resource, n int64) { a.add(r, n) }

// Release gives a place back.
func (a *Account) Release(r Resource) {
	if a == nil {
		return
	}
	if a.add(r, -1); a.closed.Load() {
		a.budget.mu.Lock()
		defer a.budget.mu.Unlock()
		a.up.pruneLocked()
	}
}

// Shares returns, for each kind, the places taken and the tenant with most of them.
func (b *Budget) Shares() []cachesidecar.ShareStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]cachesidecar.ShareStats, Resources)
	for r := range Resources {
		t := &list[r]
		*t = cachesidecar.ShareStats{
			Name: resourceNames[r], Used: b.Taken(r), Limit: b.Total(r), Refused: b.places[r].refused.Load(),
		}
		if a := b.root.greediest(r); a != nil {
			t.Most, t.MostBy = a.name, a.has[r].Load()
		}
	}
	return list
}
