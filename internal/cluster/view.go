package cluster

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// Host is another process that may own partitions. There is one Host per process, so
// pointers may be compared.
//
// A node that is started again is another process. It has another Host, which begins
// without a lease and at the beginning of the new process's log. A copy names the process
// that it came from; so no copy of an earlier process is served, whatever the later one
// has in its log.
type Host struct {
	kv.Process
	polledAt atomic.Int64 // boot clock when the last answered poll was sent; zero: none
	leasedAt atomic.Int64 // the same, when all that the answer names is applied
	log      invalidation.Follower

	// ahead translates moments of this host's boot clock; see Until. Only the owner's
	// poller sets it.
	ahead atomic.Pointer[time.Duration]
}

// endLease ends the lease, and its renewal by polls that were sent before now.
func (o *Host) endLease() {
	o.polledAt.Store(0)
	o.leasedAt.Store(0)
	o.log.Drop()
}

// setClock takes what the owner's boot clock showed, at some moment before now.
//
// Each answer gives a safe translation. From now on the owner's clock advances by more
// than 0.98 of what this host's clock does, so it shows
//
//	told + 0.98 (d - now)  =  (told - 0.98 now) + 0.98 d
//
// no later than this host's clock shows d. The highest translation is the best. An
// answer that was long on its way gives a low one, and time makes the later ones
// higher.
func (o *Host) setClock(told, now time.Duration) {
	ahead := told - slower(now)
	if old := o.ahead.Load(); told != 0 && (old == nil || *old < ahead) {
		o.ahead.Store(&ahead)
	}
}

// Until translates a moment d of this host's boot clock to the owner's boot clock, in
// nanoseconds. The owner's clock shows the result no later than this host's clock shows
// d. Zero means unknown: the owner has not told its clock.
func (o *Host) Until(d time.Duration) uint64 {
	ahead := o.ahead.Load()
	if ahead == nil {
		return 0
	}
	return uint64(max(1, *ahead+slower(d)))
}

// slower returns how far another clock advances in d at the least, less a margin.
func slower(d time.Duration) time.Duration { return d - d/50 }

// Answers reports whether the owner has answered a poll that was sent within the last
// d. If so, it is worth the wait to ask it.
func (o *Host) Answers(now, d time.Duration) bool { return within(&o.polledAt, now, d) }

// Leased reports whether everything that the owner had accepted until some moment
// within the last d has been applied here. If so, the values that the owner has
// attested may be served, unless what was applied outdates them.
func (o *Host) Leased(now, d time.Duration) bool { return within(&o.leasedAt, now, d) }

// LeasedAt returns that moment, on the boot clock; zero: never.
func (o *Host) LeasedAt() time.Duration { return time.Duration(o.leasedAt.Load()) }

// Applied returns the place in the owner's log up to which everything has been applied
// here.
func (o *Host) Applied() uint64 { return o.log.Applied() }

func within(at *atomic.Int64, now, d time.Duration) bool {
	v := at.Load()
	return v != 0 && now-time.Duration(v) < d
}

func later(at *atomic.Int64, v time.Duration) bool {
	for {
		old := at.Load()
		if int64(v) <= old {
			return false
		}
		if at.CompareAndSwap(old, int64(v)) {
			return true
		}
	}
}

// View is the ring as this node sees it. It is immutable.
type View struct {
	Table *ownership.Ring
	self  kv.NodeID
	hosts []*Host // in the order of Table.Members
}

// AssignedOwner returns the assigned owner of a partition; nil if there is none.
func (v *View) AssignedOwner(p uint16) *Host {
	i := v.Table.OwnerIndex(p)
	if i < 0 {
		return nil
	}
	return v.hosts[i]
}

// Others returns the processes in the ring, without this node's.
func (v *View) Others() []*Host {
	list := make([]*Host, 0, len(v.hosts))
	for _, o := range v.hosts {
		if o.Node != v.self {
			list = append(list, o)
		}
	}
	return list
}

// Own reports whether this node is the assigned owner of a partition.
func (v *View) Own(p uint16) bool {
	o := v.AssignedOwner(p)
	return o != nil && o.Node == v.self
}

// lacks lists the processes of other that v does not have.
func (v *View) lacks(other *View) (list []kv.Process) {
	for _, o := range other.hosts {
		if !slices.Contains(v.hosts, o) {
			list = append(list, o.Process)
		}
	}
	return list
}

// has reports whether a process is in the ring.
func (v *View) has(id kv.Process) bool {
	return slices.ContainsFunc(v.hosts, func(o *Host) bool { return o.Process == id })
}

// heirs returns how many partitions a node owns, and which nodes own them by a later
// ring.
func (v *View) heirs(node kv.NodeID, later *View) (owned int, heirs string) {
	counts := map[kv.NodeID]int{}
	for p := range uint16(kv.Partitions) {
		if v.Table.Owner(p) == node {
			owned++
			counts[later.Table.Owner(p)]++
		}
	}
	var list []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		list = append(list, fmt.Sprintf("%s (%d)", cmp.Or(name, "no host"), counts[name]))
	}
	return owned, strings.Join(list, ", ")
}
