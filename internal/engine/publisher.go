package engine

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/shm"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l1"
)

// Publisher puts values that apps have asked for more than once into the memory that they
// read. It implements cluster.Mirror, whose comments say when its methods are called.
type Publisher struct {
	*shm.Writer
	Limit  atomic.Int64 // bytes of all regions; zero: there is no shared memory
	node   *cluster.Node
	ledger *invalidation.Ledger

	view    *cluster.View // under the node's lock
	leasing sync.Mutex    // guards changes of slots, so that each lease goes to its owner's
	slots   atomic.Pointer[owners]
	asked   asked
	hits    atomic.Int64 // reads that apps have answered from the memory, as they report
}

func newPublisher(ledger *invalidation.Ledger) *Publisher {
	p := &Publisher{Writer: new(shm.Writer), ledger: ledger}
	p.slots.Store(&owners{})
	return p
}

// owners are the slots of the processes in the ring. Such a map is never changed.
type owners map[*cluster.Host]uint8

// asked has marks of the keys that were asked for lately, in sets by hash. A new mark takes
// the place of one of its set at random. If it always took the same one's, keys that are
// asked for in turn could take each other's marks for ever.
type asked [askedSets][askedWays]atomic.Uint32

const (
	askedSets = 1 << 14
	askedWays = 4
)

// again marks a key, and says whether it was marked before.
func (a *asked) again(h kv.Hash) bool {
	set, mark := &a[uint64(h)%askedSets], max(1, uint32(h>>32))
	place := rand.Uint32() % askedWays
	for i := range set {
		switch set[i].Load() {
		case mark:
			return true
		case 0:
			place = uint32(i)
		}
	}
	set[place].Store(mark)
	return false
}

// publication is a read whose value may be published. Its zero value publishes nothing.
type publication struct {
	to    *shm.Region
	at    time.Duration // boot clock
	asOf  kv.Version    // zero: nothing is published
	taken shm.Generations
}

// beginShare begins a read of a key, before anything else is looked at. Only the reader's own region
// gets the value: its other readers might not know the key.
func (p *Publisher) beginShare(q *wire.Request, k kv.Key, hlc *kv.HLC, now kv.Moment) (b publication) {
	to, ok := q.Region.(*shm.Region)
	if !ok || q.Has(wire.Fresh) || !p.Open(k.Namespace) {
		return b
	}
	if !p.asked.again(k.Hash) {
		return b
	}
	return publication{to: to, at: now.Boot, taken: p.Take(k.Namespace, k.Hash), asOf: hlc.Next(now.Wall)}
}

// owned publishes an entry that this host owns.
func (p *Publisher) owned(b publication, k kv.Key, value []byte, f kv.Facts, early time.Duration, epoch uint32) {
	if b.asOf == 0 {
		return
	}
	e := shm.Entry{Key: k, Value: value, Facts: f, Taken: b.taken, Ends: endOf(f.Deadline, early)}
	if e.Ends != 0 && e.Ends <= b.at { // it is being loaded anew
		return
	}
	partition := k.Hash.Partition()
	p.Publish(b.to, &e, func() bool {
		return p.node.OwnershipEpoch(partition) == epoch && p.admits(k, f.Version, b.asOf)
	})
}

// copied publishes a copy of an entry that another host owns.
func (p *Publisher) copied(b publication, k kv.Key, c *l1.Copy, owner *cluster.Host) {
	slot := (*p.slots.Load())[owner]
	if slot == 0 {
		return
	}
	e := shm.Entry{
		Key: k, Value: c.Value(), Facts: c.Facts, Taken: b.taken, Ends: endOf(c.Deadline, 0), Owner: slot,
	}
	p.Publish(b.to, &e, func() bool {
		return p.node.View().AssignedOwner(k.Hash.Partition()) == owner && p.admits(k, c.Version, c.AsOf)
	})
}

func (p *Publisher) admits(k kv.Key, version, asOf kv.Version) bool {
	return p.ledger.Admit(k.Namespace, k.Hash, version, asOf) || failpoint.Out(failpoint.AdmitAtPublish)
}

// endOf returns when a value is not served any more without asking. Before its deadline
// comes the time in which a read loads it anew.
func endOf(d kv.Deadline, early time.Duration) time.Duration {
	if d == 0 {
		return 0
	}
	return max(1, time.Duration(d)*time.Millisecond-early)
}

// Withdraw takes a key away, after its change has been noted.
func (p *Publisher) Withdraw(h kv.Hash) {
	if !failpoint.Out(failpoint.Withdraw) {
		p.Writer.Withdraw(h)
	}
}

// Floor takes all keys of some partitions away, after their floors have been noted.
func (p *Publisher) Floor(set kv.PartitionSet) {
	if !failpoint.Out(failpoint.FloorEnds) {
		p.RaisePartitions(set)
	}
}

// Flushed takes all keys of a namespace away, after it has been emptied.
func (p *Publisher) Flushed(id kv.NamespaceID) {
	if !failpoint.Out(failpoint.FlushEnds) {
		p.EndNamespace(id)
	}
}

// Viewed takes all keys away whose owner is another one in a new ring, and gives slots to its
// owners.
func (p *Publisher) Viewed(v *cluster.View) {
	moved := kv.NewPartitionSet(kv.Partitions)
	for i := range uint16(kv.Partitions) {
		if p.view == nil || p.view.AssignedOwner(i) != v.AssignedOwner(i) {
			moved.Add(i)
		}
	}
	if !failpoint.Out(failpoint.ViewedEnds) {
		p.RaisePartitions(moved) // before a slot may get another owner
	}
	p.view = v
	old, slots := *p.slots.Load(), owners{}
	var used [shm.MaxOwners]bool
	for _, o := range v.Others() {
		if slot := old[o]; slot != 0 {
			slots[o], used[slot] = slot, true
		}
	}
	p.leasing.Lock()
	defer p.leasing.Unlock()
	for o, slot := range old {
		if slots[o] == 0 {
			p.RevokeOwner(slot)
		}
	}
	next := 1
	for _, o := range v.Others() {
		for ; slots[o] == 0 && next < shm.MaxOwners; next++ {
			if !used[next] {
				slots[o] = uint8(next)
				p.Certify(uint8(next), o.LeasedAt())
			}
		}
	}
	p.slots.Store(&slots)
}

// Leased renews what is known of an owner.
func (p *Publisher) Leased(o *cluster.Host, at time.Duration) {
	p.leasing.Lock()
	defer p.leasing.Unlock()
	if slot := (*p.slots.Load())[o]; slot != 0 {
		p.Certify(slot, at)
	}
}

// Stopped takes all keys of some partitions away.
func (p *Publisher) Stopped(set kv.PartitionSet) {
	if !failpoint.Out(failpoint.StoppedEnds) {
		p.RaisePartitions(set)
	}
}

// Paused takes back what was known.
func (p *Publisher) Paused() { p.Revoke() }

// Running returns what Ran will compare.
func (p *Publisher) Running() time.Duration { return p.Certified(0) }

// Ran renews what is known of this host, unless a pause was found meanwhile.
func (p *Publisher) Ran(mark, until time.Duration) { p.Renew(0, mark, max(0, until)) }

// Stats returns the statistics of the shared memory.
func (p *Publisher) Stats() cachesidecar.MemoryStats {
	s := p.Writer.Stats()
	return cachesidecar.MemoryStats{
		Limit: p.Limit.Load(), Published: s.Published, Withdrawn: s.Withdrawn, Outdated: s.Refused, Busy: s.Busy,
		Hits: p.hits.Load(),
	}
}
