package ownership

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// claimMore begins to take the partitions that the ring gives to this node and that
// it does not own. Nothing begins while a member that is in has not come into the
// ring: it may own what this node would take.
func (m *Machine) claimMore() {
	if !m.joined || !m.in {
		return
	}
	if m.now < m.claimAt {
		return
	}
	for _, o := range m.members {
		if o.live() && o.in && !o.inRing {
			return
		}
	}
	m.claimAt = math.MaxInt64
	sets := map[kv.NodeID]kv.PartitionSet{} // by the member that is asked last
	for i := range m.parts {
		p := &m.parts[i]
		if p.owned || p.claim != nil || m.table.Owner(uint16(i)) != m.cfg.Self.Node {
			continue
		}
		if m.now < p.retryAt {
			m.claimAt = min(m.claimAt, p.retryAt)
		} else {
			if sets[p.before] == nil {
				sets[p.before] = m.newSet()
			}
			sets[p.before].Add(uint16(i))
		}
	}
	for _, last := range slices.Sorted(maps.Keys(sets)) {
		m.claim(sets[last], last)
	}
}

// claim begins to take a set.
func (m *Machine) claim(set kv.PartitionSet, last kv.NodeID) {
	c := &claim{
		ballot:  &kv.Ballot{Clock: m.cfg.Stamp(), Process: m.cfg.Self},
		set:     set,
		last:    last,
		answers: map[kv.NodeID]*answered{},
		began:   m.now,
		sentAt:  m.now,
	}
	for i := range set.All() {
		m.parts[i].claim = c
	}
	m.claims = append(m.claims, c)
	// Also to members considered dead: a link that still works prevents a split.
	for _, o := range m.others() {
		if o.id.Node != last {
			m.do(Send{o.id, m.acquire(c)})
		}
	}
	m.askLast(c)
}

// askLast asks the assigned owner before, once all other members that count have
// granted what is left of a claim.
func (m *Machine) askLast(c *claim) {
	if c.lastSent || c.set.Empty() {
		return
	}
	for _, o := range m.members {
		if o.id.Node != c.last && m.mustAnswer(o) && m.ungranted(c, o) && !m.impatient(c) {
			return
		}
	}
	c.lastSent, c.lastAt = true, m.now
	if o := m.members[c.last]; o != nil {
		m.do(Send{o.id, m.acquire(c)})
	}
}

// impatient says whether that owner is asked although other members have not
// answered. Under policy consistent, this is so if the claim can do without them.
func (m *Machine) impatient(c *claim) bool {
	votes := len(m.granted(c))
	if m.isVoter(c.last) {
		votes++
	}
	return m.consistent() && m.now-c.began >= m.cfg.Bound/4 && votes >= m.majority()
}

func (m *Machine) acquire(c *claim) Acquire {
	set := m.newSet()
	copy(set, c.set)
	return Acquire{Ballot: c.ballot, State: m.State(), Partitions: set, Ring: m.entered}
}

// resend asks again each member that has not answered, has refused, or has named an
// unknown process; and a voter that has granted before it votes.
func (m *Machine) resend() {
	for _, c := range m.claims {
		every := m.cfg.Bound / 4
		switch {
		case c.refused > 0 && m.now-c.refused < m.cfg.Bound/4:
			every = m.cfg.Bound / 64 // requests wait: it mostly hears of the change at this moment
		case c.refused > 0:
			every = m.cfg.Bound / 8
		}
		if c.set.Empty() || c.polling || m.now-c.sentAt < every {
			continue
		}
		c.sentAt = m.now
		for _, o := range m.others() {
			done := m.grants(c, o) && (c.answer(o.id).Voter || !m.isVoter(o.id.Node))
			if !done && (c.lastSent || o.id.Node != c.last) {
				m.do(Send{o.id, m.acquire(c)})
			}
		}
	}
}

// knows says whether each process is in the ring, is this one, or is known to be no
// member any more. A process that is considered dead here, but is in at the answering
// member, may have come back and may be asking other members. First it must be heard,
// or be dead there too.
func (m *Machine) knows(list []kv.Process) bool {
	for _, id := range list {
		if id.Node == m.cfg.Self.Node || m.gone.has(id) {
			continue
		}
		o := m.members[id.Node]
		if o == nil || o.id != id || !o.inRing {
			return false
		}
	}
	return true
}

// Answered takes a member's answer to an ACQUIRE; the latest one counts.
func (m *Machine) Answered(now time.Duration, from kv.Process, a Answer) {
	m.now = max(m.now, now)
	o := m.current(from)
	if o == nil {
		return
	}
	m.hear(o)
	for _, c := range m.claims {
		if c.ballot.Compare(a.Ballot) != 0 {
			continue
		}
		c.noteAnswer(from, a, m.now)
		if !m.mustAnswer(o) {
			break
		}
		needed := !m.consistent() || m.needsVoter(c, from.Node)
		for i := range c.set.All() {
			if needed && a.Passed.Has(i) {
				m.giveUp(i) // the next claim has a higher ballot
			}
		}
		// A member that refuses has often not heard yet what has changed. It
		// is asked again with the same ballot: the members that have granted
		// it may have told the owner of it, and that owner then gives nothing
		// to another ballot.
		if !a.Granted.Contains(c.set) && c.refused == 0 {
			c.refused = m.now
		}
		if m.now-c.refused < m.cfg.Bound/2 || !needed {
			continue
		}
		// One wait for all that it refuses, so that they are asked for
		// together.
		retryAt := m.now + time.Duration(m.cfg.Rand.Int64N(int64(m.cfg.Bound/2)))
		for i := range c.set.All() {
			if !a.Granted.Has(i) {
				m.giveUp(i)
				m.parts[i].retryAt = retryAt
			}
		}
	}
	m.settle()
}

// needsVoter says whether a claim lacks a majority, and a member is one of the voters.
func (m *Machine) needsVoter(c *claim, member kv.NodeID) bool {
	return m.isVoter(member) && len(m.granted(c)) < m.majority()
}

// giveUp takes a partition out of its claim.
func (m *Machine) giveUp(i uint16) {
	p := &m.parts[i]
	if p.claim == nil {
		return
	}
	p.claim.set.Remove(i)
	p.claim = nil
	m.claimAt = 0
}

// decide begins the ownerships for which no answer is missing.
func (m *Machine) decide() {
	kept := m.claims[:0]
	for _, c := range m.claims {
		m.askLast(c)
		switch {
		case c.set.Empty():
		case m.consistent():
			m.decideVoted(c)
		case m.answered(c):
			m.beginOwnership(c, c.set, never)
		}
		if !c.set.Empty() {
			kept = append(kept, c)
		}
	}
	clear(m.claims[len(kept):])
	m.claims = kept
}

// mustAnswer says whether a claim needs a member's answer: the member is in; or it is out
// as far as this node knows, but can be asked, since it answers polls. It may have
// come in at this moment, as this node has, without either knowing. So it counts, even if
// polls fail from then on, until it has been told that this node is in, or is given up. Of
// two nodes that refuse each other, neither comes in while it knows that the other is in.
func (m *Machine) mustAnswer(o *member) bool {
	if !o.live() || o.in {
		return o.live()
	}
	answers := o.askedAt > 0 && o.askedAt >= o.cameAt && m.now-o.askedAt < m.cfg.Bound
	stranger := o.refused && !o.wasIn
	return answers || m.untold(o) && !stranger && m.now-o.polledAt < m.judgeAfter()
}

// untold says whether a member has answered no poll since this node last came in: it may
// not know that this node is in.
func (m *Machine) untold(o *member) bool { return o.saidState < m.inSince }

// answered says whether all members that must answer a claim have granted it, and
// name only processes that this node knows.
func (m *Machine) answered(c *claim) bool {
	for _, o := range m.members {
		if m.mustAnswer(o) && m.ungranted(c, o) {
			return false
		}
	}
	return true
}

// ungranted says whether a member's grant of a claim is missing.
func (m *Machine) ungranted(c *claim, o *member) bool {
	return o.in && !o.inRing || !m.grants(c, o)
}

// grants says whether a member's latest answer grants a claim, and names no unknown
// process.
func (m *Machine) grants(c *claim, o *member) bool {
	a := c.answer(o.id)
	return a != nil && (m.knows(a.In) || failpoint.Out(failpoint.NamedInAnswer)) && a.Granted.Contains(c.set)
}

// beginOwnership starts to own part of a claim that all have granted, unless a higher ballot
// was granted or the ring has changed meanwhile.
func (m *Machine) beginOwnership(c *claim, set kv.PartitionSet, until time.Duration) {
	begun := Begun{
		Ballot: c.ballot, Partitions: m.newSet(),
		Releasers: map[kv.Process]kv.PartitionSet{}, Keepers: map[kv.Process]bool{}, Heads: map[kv.Process]uint64{},
	}
	for _, a := range c.answers {
		begun.Heads[a.from] = a.Head
	}
	for i := range set.All() {
		p := &m.parts[i]
		c.set.Remove(i)
		p.claim, m.claimAt = nil, 0
		if p.promised.Compare(c.ballot) > 0 || m.table.Owner(i) != m.cfg.Self.Node {
			continue
		}
		m.promise(i, c.ballot)
		before := m.ownerBefore(c, i)
		p.owned, p.retired, p.higher, p.released = true, 0, nil, nil
		p.ballot, p.until = c.ballot, until
		begun.Partitions.Add(i)
		for _, a := range c.answers {
			id := a.from
			if a.Released.Has(i) && (before != nil && before.Process == id || before == nil && !m.consistent()) {
				if begun.Releasers[id] == nil {
					begun.Releasers[id] = m.newSet()
				}
				begun.Releasers[id].Add(i)
				begun.Keepers[id] = a.Keeps
			}
		}
	}
	if !begun.Partitions.Empty() {
		m.do(begun)
	}
}
