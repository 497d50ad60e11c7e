package cluster

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/ring"
)

// Owner is another process that may own partitions. There is one Owner a
// process: pointers to it may be compared.
type Owner struct {
	kv.Process
	polledAt atomic.Int64 // boot clock when the last poll that it has answered was sent; zero is none
	leasedAt atomic.Int64 // the same, of a poll with whose answer all that it names has been applied
	log      invalidation.Follower

	// ahead translates moments of this host's boot clock, see Until. It is its
	// poller's to set.
	ahead atomic.Pointer[time.Duration]
}

// answered notes what the owner's boot clock showed, at some moment before now.
//
// Each answer gives a translation that is safe: from now on the owner's clock
// advances by more than 0.98 of what this one does, so it shows
//
//	told + 0.98 (d - now)  =  (told - 0.98 now) + 0.98 d
//
// no later than this one shows d. The highest is the best; an answer that was long
// on its way gives a low one, and time makes the later ones higher.
func (o *Owner) answered(told, now time.Duration) {
	ahead := told - slower(now)
	if old := o.ahead.Load(); told != 0 && (old == nil || *old < ahead) {
		o.ahead.Store(&ahead)
	}
}

// Until translates a moment of this host's boot clock to the owner's, which shows
// the result no later than this one shows d. Zero is unknown: the owner has not
// told its clock.
func (o *Owner) Until(d time.Duration) uint64 {
	ahead := o.ahead.Load()
	if ahead == nil {
		return 0
	}
	return uint64(max(1, *ahead+slower(d)))
}

// slower is the least that another clock advances in d, and some more.
func slower(d time.Duration) time.Duration { return d - d/50 }

// Answers says whether the owner has answered a poll that was sent within the
// last d: whether it is worth the wait to ask it.
func (o *Owner) Answers(now, d time.Duration) bool { return within(&o.polledAt, now, d) }

// Leased says whether everything that the owner had accepted until some moment
// within the last d has been applied here: what it has vouched for, and what is
// not outdated by that, may be served.
func (o *Owner) Leased(now, d time.Duration) bool { return within(&o.leasedAt, now, d) }

// LeasedAt is that moment, on the boot clock; zero is never.
func (o *Owner) LeasedAt() time.Duration { return time.Duration(o.leasedAt.Load()) }

// Applied is the place in the owner's log up to which everything has been applied
// here.
func (o *Owner) Applied() uint64 { return o.log.Applied() }

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
	Table  *ring.Table
	self   kv.NodeID
	owners []*Owner // in the order of Table.Members
}

// Owner returns the process that should hold a partition; nil where nobody
// should.
func (v *View) Owner(p uint16) *Owner {
	i := v.Table.OwnerIndex(p)
	if i < 0 {
		return nil
	}
	return v.owners[i]
}

// Others are the processes that own partitions, but for this one.
func (v *View) Others() []*Owner {
	list := make([]*Owner, 0, len(v.owners))
	for _, o := range v.owners {
		if o.Node != v.self {
			list = append(list, o)
		}
	}
	return list
}

// Own says whether this node should hold a partition.
func (v *View) Own(p uint16) bool {
	o := v.Owner(p)
	return o != nil && o.Node == v.self
}

// lacks lists the processes of a view that another one does not have.
func (v *View) lacks(other *View) (list []kv.Process) {
	for _, o := range other.owners {
		if !slices.Contains(v.owners, o) {
			list = append(list, o.Process)
		}
	}
	return list
}
