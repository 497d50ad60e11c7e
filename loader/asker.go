package loader

import (
	"context"
	"maps"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/cachesidecar/cachesidecar/internal/quota"
)

// asker is a caller of an origin: a process, the tenant above it, or all tenants together. It is known by the names of
// its account. What the host does for itself has the name "" at both levels. The lock of the Queue guards all fields.
type asker struct {
	up    *asker
	name  string
	below map[string]*asker

	has     [kinds]int64
	holders [kinds]int64 // askers below that have some

	// Of a process.
	used   time.Time       // it asked last
	line   []chan struct{} // its callers that wait
	stands time.Time       // since when callers have waited; while some wait

	takes time.Duration // of a tenant: an admitted caller, on average

	breaker *gobreaker.TwoStepCircuitBreaker[struct{}] // of a Guard
	failed  []string                                   // up to two askers below, since the last success
}

// What an asker has: places, and callers that wait for one.
const (
	running = iota
	waiting
	kinds
)

const (
	// lately is for how long a process that has asked is remembered at least.
	lately = time.Minute
	// maxAskers bounds the processes that are known by their own names. A process beyond that counts as its tenant
	// alone, and a tenant beyond that as one of the others.
	maxAskers = 1024
	others    = "other users"
)

// askers are all askers, as a tree.
type askers struct {
	all       asker
	processes int
	last      *asker    // the process that asked last, but for the host itself
	before    time.Time // when another one than the last asked last
}

// askNow notes that the process of a context asks.
func (list *askers) askNow(ctx context.Context, now time.Time) *asker {
	tenant, process := quota.AccountOf(ctx).Names()
	a := list.find(tenant, process)
	if a == nil {
		list.forgetIdle(now)
		a = list.add(list.nameWithin(tenant, process))
	}
	if a.up.name != "" && a != list.last {
		if list.last != nil {
			list.before = list.last.used
		}
		list.last = a
	}
	a.used = now
	return a
}

// isAlone says whether one process at most has asked lately, but for the host itself.
func (list *askers) isAlone(now time.Time) bool { return now.Sub(list.before) >= lately }

func (list *askers) find(tenant, process string) *asker {
	if t := list.all.below[tenant]; t != nil {
		return t.below[process]
	}
	return nil
}

// nameWithin returns the names under which a new process is known. The bound is shared like places.
func (list *askers) nameWithin(tenant, process string) (string, string) {
	var processes int
	tenants := len(list.all.below) + 1
	t := list.all.below[tenant]
	if t != nil {
		processes, tenants = len(t.below), tenants-1
	}
	share := quota.Share{Has: int64(processes + 1), Holders: int64(tenants)}
	switch {
	case quota.LastPlaces.MayHold(maxAskers, int64(list.processes+1), share):
		return tenant, process
	case t != nil:
		return tenant, ""
	}
	return others, ""
}

func (list *askers) add(tenant, process string) *asker {
	if a := list.find(tenant, process); a != nil {
		return a
	}
	list.processes++
	return list.all.add(tenant).add(process)
}

func (a *asker) add(name string) *asker {
	n := a.below[name]
	if n == nil {
		n = &asker{up: a, name: name}
		if a.below == nil {
			a.below = map[string]*asker{}
		}
		a.below[name] = n
	}
	return n
}

// forgetIdle forgets the processes that have nothing and have not asked lately, but for those with an open breaker.
func (list *askers) forgetIdle(now time.Time) {
	for _, t := range list.all.below {
		before := len(t.below)
		maps.DeleteFunc(t.below, func(_ string, a *asker) bool {
			return now.Sub(a.used) >= lately && a.has == [kinds]int64{} && a.state() != gobreaker.StateOpen
		})
		list.processes -= before - len(t.below)
	}
	maps.DeleteFunc(list.all.below, func(_ string, t *asker) bool {
		return len(t.below) == 0 && t.state() != gobreaker.StateOpen
	})
}

// count counts n more of a kind, one or minus one, at all levels.
func (a *asker) count(kind int, n int64) {
	for ; a != nil; a = a.up {
		switch a.has[kind] += n; {
		case a.up == nil:
		case n > 0 && a.has[kind] == 1:
			a.up.holders[kind]++
		case a.has[kind] == 0:
			a.up.holders[kind]--
		}
	}
}

// share returns what the asker has of a kind, and how many share it.
func (a *asker) share(kind int) quota.Share {
	return quota.Share{Has: a.has[kind], Holders: a.up.holders[kind]}
}

// String names a process, or a tenant.
func (a *asker) String() string {
	switch {
	case a.name == "" && (a.up.up == nil || a.up.name == ""):
		return "this host itself"
	case a.name == "":
		return a.up.name
	case a.up.up == nil:
		return a.name
	}
	return a.name + " of " + a.up.name
}
