package ownership

import (
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Asked answers another node's ACQUIRE. What the answer ends has ended before the
// answer goes out. The sender of the answer adds the log's head.
func (m *Machine) Asked(now time.Duration, from kv.Process, q Acquire) Answer {
	m.now = max(m.now, now)
	a := Answer{Ballot: q.Ballot, Granted: m.newSet(), Released: m.newSet(), Passed: m.newSet()}
	o := m.current(from)
	if o == nil {
		return a
	}
	m.hear(o)
	if q.State >= o.state { // a node that is out asks for nothing
		o.state, o.in, o.goneOut = q.State, true, false
	}
	m.settle()
	ended, released := m.newSet(), m.newSet()
	allKnown := m.knowsRing(q.Ring)
	for i := range q.Partitions.All() {
		p := &m.parts[i]
		// A node that is out has no say, and owns nothing.
		if m.in && (m.table.Owner(i) != from.Node || !o.inRing) ||
			p.promised.Compare(q.Ballot) > 0 ||
			p.claim != nil && p.claim.ballot.Compare(q.Ballot) > 0 ||
			p.owned && !allKnown {
			if p.promised.Compare(q.Ballot) > 0 && m.table.Owner(i) == from.Node {
				a.Passed.Add(i)
			}
			continue // RETRY
		}
		a.Granted.Add(i)
		m.giveUp(i)
		if p.owned {
			ended.Add(i)
			// If it was told of a higher ballot, it hands over to that
			// very ballot alone: another node may have owned the
			// partition since.
			if p.higher == nil || p.higher.Compare(q.Ballot) == 0 {
				p.released = q.Ballot
				released.Add(i)
			}
			p.owned, p.retired, p.higher = false, 0, nil
			m.claimAt = 0
		}
		if p.released.Compare(q.Ballot) == 0 && q.Ballot != nil {
			a.Released.Add(i)
		}
		m.promise(i, q.Ballot)
	}
	if !ended.Empty() {
		m.do(Ended{ended, released, "acquired by " + string(from.Node)})
	}
	if a.Voter = m.remembers(); a.Voter {
		a.Authorities = m.authorities(q.Partitions)
	} else if !m.consistent() {
		a.Authorities = m.lastOwned(a.Granted)
	}
	a.In = m.AreIn()
	return a
}

// lastOwned lists the ballots under which this node has last owned the partitions of a set.
func (m *Machine) lastOwned(set kv.PartitionSet) (list []Ownership) {
	for i := range set.All() {
		b := m.parts[i].ballot
		if b == nil {
			continue
		}
		at := slices.IndexFunc(list, func(o Ownership) bool { return o.Ballot == b })
		if at < 0 {
			at, list = len(list), append(list, Ownership{b, m.newSet()})
		}
		list[at].Partitions.Add(i)
	}
	return list
}

// knowsRing says whether all members of an asker's ring are in this node's ring.
func (m *Machine) knowsRing(list []kv.Process) bool {
	for _, id := range list {
		if id == m.cfg.Self {
			continue
		}
		if o := m.members[id.Node]; o == nil || o.id != id || !o.inRing {
			return false
		}
	}
	return true
}

// promise remembers the highest ballot answered.
func (m *Machine) promise(i uint16, b *kv.Ballot) {
	p := &m.parts[i]
	switch p.promised.Compare(b) {
	case -1:
		m.ballotsAt++
		p.promised, p.changed, p.saidAt = b, m.ballotsAt, m.now
	case 0:
		p.saidAt = m.now
	}
}

// retireBelow retires what a higher ballot may have taken. With voters, a higher ballot
// has taken nothing while this node's authority lasts: a side without a majority of
// voters tries ballot after ballot, and would empty everything when it comes back.
func (m *Machine) retireBelow(list []wire.Promise) {
	if len(list) == 0 || m.consistent() || failpoint.Out(failpoint.HigherBallot) {
		return
	}
	retired := m.newSet()
	var told []uint16
	for n := range list {
		if len(told) > len(m.parts) { // each partition has one ballot
			break
		}
		b, from := list[n].Ballot, len(told) // a copy: p.higher keeps it
		told = kv.UnpackPartitions(told, list[n].Partitions)
		for _, i := range told[from:] {
			p := &m.parts[i]
			if p.owned && p.promised.Compare(&b) < 0 && p.higher.Compare(&b) < 0 {
				p.higher = &b
				if p.retired == 0 {
					m.retire(p)
					retired.Add(i)
				}
			}
		}
	}
	if !retired.Empty() {
		m.do(Retired{retired, "a higher ballot was answered"})
	}
}
