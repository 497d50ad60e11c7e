package ownership

import (
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Policy consistent: a diskless Paxos lease per partition, batched over sets of
// partitions (PaxosLease, Trencséni, Gazsó and Reinhardt, 2012), among a fixed list
// of named voters. ACQUIRE is its prepare; AUTH is its propose and its extension.
//
// Any two majorities of the voters share a voter that remembers. Either it refuses
// the old owner's AUTHs from the moment it answers the new owner's ACQUIRE, and then
// the old authority is over B later; or it names the old owner, and that owner has
// itself said that it has stopped. A voter that was restarted has forgotten its
// answers. It stays silent for longer than any authority or acquisition lives that it
// could have helped.

// vote is an AUTH that this node has acknowledged.
type vote struct {
	ballot     *kv.Ballot
	partitions kv.PartitionSet
	at         time.Duration
}

// round is an AUTH under way to all voters.
type round struct {
	number  uint64
	sent    time.Duration
	auth    Auth
	answers map[kv.NodeID][]kv.PartitionSet
}

func (m *Machine) consistent() bool { return len(m.cfg.Voters) > 0 }

func (m *Machine) majority() int { return len(m.cfg.Voters)/2 + 1 }

func (m *Machine) isVoter(n kv.NodeID) bool { return slices.Contains(m.cfg.Voters, n) }

// remembers says whether this node is a voter that knows all its answers. It has
// forgotten the answers from before it was started.
func (m *Machine) remembers() bool {
	return m.isVoter(m.cfg.Self.Node) && m.now-m.bornAt >= Margin(2*m.cfg.Bound)
}

// LapseAt returns when the first ownership ends unless more voters acknowledge it
// before. At that moment, or after, Tick is due before anything is answered.
func (m *Machine) LapseAt() time.Duration { return m.lapseAt }

// Quorum says whether a partition can be taken. Under policy consistent, a majority
// of the voters must answer polls.
func (m *Machine) Quorum() bool {
	n := 0
	for _, v := range m.cfg.Voters {
		if o := m.members[v]; v == m.cfg.Self.Node || o != nil && m.leased(o) {
			n++
		}
	}
	return !m.consistent() || n >= m.majority()
}

// endLapsed ends the ownerships whose authority is over.
func (m *Machine) endLapsed() {
	if m.now < m.lapseAt {
		return
	}
	set := m.newSet()
	m.lapseAt = never
	for i := range m.parts {
		switch p := &m.parts[i]; {
		case !p.owned:
		case m.now >= p.until:
			set.Add(uint16(i))
		default:
			m.lapseAt = min(m.lapseAt, p.until)
		}
	}
	m.endOwnership(set, "no majority of the voters has acknowledged it in time")
}

// voteSelf answers a claim of this node as one of the voters.
func (m *Machine) voteSelf(c *claim) {
	self := m.cfg.Self
	if !m.remembers() || c.answer(self) != nil {
		return
	}
	a := Answer{Ballot: c.ballot, Granted: m.newSet(), Voter: true, Authorities: m.authorities(c.set)}
	for i := range c.set.All() {
		if m.parts[i].promised.Compare(c.ballot) <= 0 {
			m.promise(i, c.ballot)
			a.Granted.Add(i)
		}
	}
	c.noteAnswer(self, a, m.now)
}

// authorities lists the ballots that may have authority over any of a set, as far as
// this voter knows.
func (m *Machine) authorities(set kv.PartitionSet) (list []Ownership) {
	m.forgetVotes()
	for _, v := range m.votes {
		if both := m.common(v.partitions, set); !both.Empty() {
			list = append(list, Ownership{v.ballot, both})
		}
	}
	return list
}

// Acknowledged lists the processes that may have authority over any partition, as far
// as this voter knows, and says whether it knows them all.
func (m *Machine) Acknowledged() (list []kv.Process, remembers bool) {
	m.forgetVotes()
	for _, v := range m.votes {
		if !slices.Contains(list, v.ballot.Process) {
			list = append(list, v.ballot.Process)
		}
	}
	return list, m.remembers()
}

func (m *Machine) common(a, b kv.PartitionSet) kv.PartitionSet {
	both := m.newSet()
	for i := range both {
		both[i] = a[i] & b[i]
	}
	return both
}

func (m *Machine) forgetVotes() {
	m.votes = slices.DeleteFunc(m.votes, func(v vote) bool { return m.now-v.at >= 2*m.cfg.Bound })
}

// granted lists, for each voter that grants what is left of a claim, since when it
// does.
func (m *Machine) granted(c *claim) (at []time.Duration) {
	for _, v := range m.cfg.Voters {
		a, o := c.answers[v], m.members[v]
		if a != nil && (v == m.cfg.Self.Node || o != nil && o.id == a.from) && a.Voter && a.Granted.Contains(c.set) {
			at = append(at, a.since)
		}
	}
	slices.Sort(at)
	return at
}

// prepared says whether a claim may go on to AUTH: a majority of the voters has
// granted it, every process that may have had authority has stopped, and all other
// members have had their time to answer.
func (m *Machine) prepared(c *claim) bool {
	at := m.granted(c)
	if len(at) < m.majority() {
		return false
	}
	lapsed := at[m.majority()-1] + Margin(m.cfg.Bound) // any earlier authority is over
	if m.now < lapsed && !m.authoritiesEnded(c) {
		return false
	}
	since := c.began
	if o := m.members[c.last]; o != nil && m.mustAnswer(o) {
		if since = c.lastAt; !c.lastSent {
			return false
		}
	}
	return m.answered(c) || m.now-since >= m.cfg.Bound/4
}

// authoritiesEnded says whether every process that the voters name has itself granted the
// claim, in the very process that is named.
func (m *Machine) authoritiesEnded(c *claim) bool {
	for _, v := range m.cfg.Voters {
		a := c.answers[v]
		if a == nil {
			continue
		}
		for _, h := range a.Authorities {
			id := h.Ballot.Process
			both := m.common(h.Partitions, c.set)
			if id == m.cfg.Self || both.Empty() {
				continue // it owns nothing of what it claims
			}
			if own := c.answer(id); own == nil || !own.Granted.Contains(both) {
				return false
			}
		}
	}
	return true
}

// ownerBefore returns the last ballot under which a partition was owned, as far as the answers to a claim tell: those
// of the voters, or without voters those of all members about themselves, and this node's own. Only that owner's
// entries are current: an owner that stopped earlier, or that was on another side of a split, may have had a
// successor.
func (m *Machine) ownerBefore(c *claim, i uint16) (last *kv.Ballot) {
	if !m.consistent() {
		last = m.parts[i].ballot
	}
	for node, a := range c.answers {
		if m.consistent() && !m.isVoter(node) {
			continue
		}
		for _, h := range a.Authorities {
			if h.Partitions.Has(i) && last.Compare(h.Ballot) < 0 {
				last = h.Ballot
			}
		}
	}
	return last
}

// decideVoted takes a claim as far as the voters let it.
func (m *Machine) decideVoted(c *claim) {
	m.voteSelf(c)
	switch {
	case m.now-c.began >= 2*m.cfg.Bound: // a voter may have forgotten it
		for i := range c.set.All() {
			m.giveUp(i)
		}
	case !c.polling && m.prepared(c):
		c.polling = true
		set := m.newSet()
		copy(set, c.set)
		m.poll(Auth{[]Ownership{{c.ballot, set}}})
	}
}

// pollVoters asks every B/4 for authority over all that is owned, and over the claims
// that have reached AUTH.
func (m *Machine) pollVoters() {
	if !m.consistent() || m.now-m.polledAt < m.cfg.Bound/4 {
		return
	}
	m.polledAt = m.now
	m.rounds = slices.DeleteFunc(m.rounds, func(r *round) bool { return m.now-r.sent >= m.cfg.Bound })
	var a Auth
	at := map[*kv.Ballot]int{}
	for i := range m.parts {
		b := m.parts[i].seeks()
		if b == nil {
			continue
		}
		n, ok := at[b]
		if !ok {
			n = len(a.Ownerships)
			at[b] = n
			a.Ownerships = append(a.Ownerships, Ownership{b, m.newSet()})
		}
		a.Ownerships[n].Partitions.Add(uint16(i))
	}
	if len(a.Ownerships) > 0 {
		m.poll(a)
	}
}

// poll begins a round.
func (m *Machine) poll(a Auth) {
	m.numbers++
	r := &round{m.numbers, m.now, a, map[kv.NodeID][]kv.PartitionSet{}}
	m.rounds = append(m.rounds, r)
	for _, v := range m.cfg.Voters {
		if o := m.members[v]; o != nil {
			m.do(SendAuth{o.id, r.number, a})
		}
	}
	if m.remembers() {
		r.answers[m.cfg.Self.Node] = m.acknowledge(m.cfg.Self, a)
		m.tally(r)
	}
}

// Authorize answers another node's AUTH: which partitions of each of its ownerships
// are acknowledged; nil: none.
func (m *Machine) Authorize(now time.Duration, from kv.Process, a Auth) []kv.PartitionSet {
	m.now = max(m.now, now)
	o := m.current(from)
	if o == nil {
		return nil
	}
	m.hear(o)
	m.settle()
	if !m.remembers() {
		return nil
	}
	return m.acknowledge(from, a)
}

// bars says whether a promise keeps a voter from acknowledging a ballot. A higher
// promise does, for as long as its claim can live without this voter's
// acknowledgement. After that the claim is over, or a majority of other voters has
// acknowledged it and does not acknowledge the lower ballot.
func (m *Machine) bars(p *partition, b *kv.Ballot) bool {
	return p.promised.Compare(b) > 0 && m.now-p.saidAt < Margin(2*m.cfg.Bound)
}

// acknowledge acknowledges the partitions for which no higher ballot was seen lately.
func (m *Machine) acknowledge(from kv.Process, a Auth) []kv.PartitionSet {
	m.forgetVotes()
	list := make([]kv.PartitionSet, len(a.Ownerships))
	for n, h := range a.Ownerships {
		list[n] = m.newSet()
		if h.Ballot.Process != from {
			continue
		}
		for i := range h.Partitions.All() {
			if m.bars(&m.parts[i], h.Ballot) {
				continue
			}
			if p := &m.parts[i]; p.promised.Compare(h.Ballot) > 0 {
				p.promised = nil
			}
			m.promise(i, h.Ballot)
			list[n].Add(i)
		}
		m.supersede(h.Ballot, list[n])
		same := func(v vote) bool { return v.ballot.Compare(h.Ballot) == 0 && slices.Equal(v.partitions, list[n]) }
		if at := slices.IndexFunc(m.votes, same); at >= 0 {
			m.votes[at].at = m.now
		} else if !list[n].Empty() {
			m.votes = append(m.votes, vote{h.Ballot, list[n], m.now})
		}
	}
	return list
}

// supersede takes partitions out of the votes for lower ballots: an owner asks for
// authority only once that of all before it is over. So no claim waits for the word of an
// owner that has had a successor, and that may be gone.
func (m *Machine) supersede(by *kv.Ballot, set kv.PartitionSet) {
	for n := range m.votes {
		v := &m.votes[n]
		if v.ballot.Compare(by) >= 0 || m.common(v.partitions, set).Empty() {
			continue
		}
		v.partitions = slices.Clone(v.partitions) // an answer may share it
		for i := range set.All() {
			if v.partitions.Has(i) {
				v.partitions.Remove(i)
			}
		}
	}
	m.votes = slices.DeleteFunc(m.votes, func(v vote) bool { return v.partitions.Empty() })
}

// Authorized takes a voter's answer to the AUTH of a round.
func (m *Machine) Authorized(now time.Duration, from kv.Process, number uint64, acknowledged []kv.PartitionSet) {
	m.now = max(m.now, now)
	o := m.current(from)
	if o == nil {
		return
	}
	m.hear(o)
	m.endLapsed() // an ownership that has ended does not come back
	for _, r := range m.rounds {
		if r.number == number && len(acknowledged) == len(r.auth.Ownerships) && m.isVoter(from.Node) {
			r.answers[from.Node] = acknowledged
			m.tally(r)
		}
	}
	m.settle()
}

// tally counts a round's answers. What a majority has acknowledged is owned until B
// after the round was sent.
func (m *Machine) tally(r *round) {
	if len(r.answers) < m.majority() {
		return
	}
	until := r.sent + m.cfg.Bound
	begins := map[*claim]kv.PartitionSet{}
	retryAt := m.now + time.Duration(m.cfg.Rand.Int64N(int64(m.cfg.Bound/2)))
	for n, h := range r.auth.Ownerships {
		for i := range h.Partitions.All() {
			p := &m.parts[i]
			if p.seeks() != h.Ballot {
				continue
			}
			yes := 0
			for _, a := range r.answers {
				if a[n].Has(i) {
					yes++
				}
			}
			switch c := p.claim; {
			case yes >= m.majority() && p.owned:
				p.until = max(p.until, until)
			case yes >= m.majority():
				if begins[c] == nil {
					begins[c] = m.newSet()
				}
				begins[c].Add(i)
			// A higher ballot has a majority.
			case len(r.answers)-yes > len(m.cfg.Voters)-m.majority() && !p.owned:
				m.giveUp(i)
				p.retryAt = retryAt
			}
		}
	}
	for _, c := range m.claims {
		if begins[c] != nil && m.now < until && m.now-c.began < 2*m.cfg.Bound {
			m.beginOwnership(c, begins[c], until)
		}
	}
	m.lapseAt = never
	for i := range m.parts {
		if p := &m.parts[i]; p.owned {
			m.lapseAt = min(m.lapseAt, p.until)
		}
	}
}
