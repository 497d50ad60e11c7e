package ownership

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Seen takes gossip's report of a live member, with its State as in a poll. If gossip has
// no State, it is zero: then weight and in count until the member itself has told.
func (m *Machine) Seen(now time.Duration, id kv.Process, state uint64, weight uint32, in bool) {
	m.now = max(m.now, now)
	switch o := m.current(id); {
	case o != nil:
		o.missing = false
		m.hear(o)
		if state >= o.state {
			o.state, o.weight, o.in = state, weight, in
		}
		m.settle()
	case m.members[id.Node] != nil:
		// Another process has the name. Its clock was set back, or it was
		// there before. Gossip hears that process, so nothing else reports
		// the known one missing.
		m.members[id.Node].missing = true
		m.settle()
	}
}

// Missing takes gossip's report that a member is dead.
func (m *Machine) Missing(now time.Duration, node kv.NodeID) {
	m.now = max(m.now, now)
	if o := m.members[node]; o != nil {
		o.missing = true
		m.settle()
	}
}

// Left takes a member's goodbye: it owns nothing any more.
func (m *Machine) Left(now time.Duration, id kv.Process) {
	m.now = max(m.now, now)
	m.gone.add(id, went{m.now, false})
	if o := m.members[id.Node]; o != nil && o.id == id {
		delete(m.members, id.Node)
	}
	m.settle()
}

// Polled says that a poll of a process has been answered. The poll was sent at some time,
// and has said a State.
func (m *Machine) Polled(now time.Duration, id kv.Process, sent time.Duration, said uint64, answer *wire.Poll) {
	m.now = max(m.now, now)
	m.reinstate(id)
	o := m.current(id)
	if o == nil {
		return
	}
	m.hear(o)
	o.polledAt, o.askedAt, o.saidState, o.strange = m.now, max(o.askedAt, sent), max(o.saidState, said), 0
	m.learn(o, answer)
	m.settle()
}

// Refused says whether this node refuses a process, or the process this node.
func (m *Machine) Refused(id kv.Process, refused bool) {
	if o := m.members[id.Node]; o != nil && o.id == id {
		o.refused = refused
	}
}

// Leased says that everything that was in a process's log when a poll of it was sent
// has been applied.
func (m *Machine) Leased(now time.Duration, id kv.Process, sent time.Duration) {
	m.now = max(m.now, now)
	if o := m.current(id); o != nil {
		o.leasedAt = max(o.leasedAt, sent)
		m.settle()
	}
}

// PolledBy says that a process polls this node. PollFor returns the answer.
func (m *Machine) PolledBy(now time.Duration, id kv.Process, poll *wire.Poll) {
	m.now = max(m.now, now)
	m.reinstate(id)
	if o := m.current(id); o != nil {
		m.hear(o)
		m.learn(o, poll)
		m.settle()
	}
}

// learn takes what a process tells in its poll, or in its answer to one.
func (m *Machine) learn(o *member, w *wire.Poll) {
	if w.State >= o.state {
		o.state, o.joined, o.in, o.weight = w.State, w.Joined, w.In, w.Weight
		o.goneOut = false
	}
	o.leasesUs = w.Leased
	m.retireBelow(w.Ballots)
	o.ballotsHave = max(o.ballotsHave, w.Next)
	o.ballotsTold = max(o.ballotsTold, w.Have)
	m.learnOthers(o, w)
	o.unpolled, o.unpolledAt = w.Cannot, m.now
}

// PollFor returns what a poll of a process, or the answer to its poll, tells it, without
// the clocks and the log's head.
func (m *Machine) PollFor(id kv.Process) *wire.Poll {
	w := &wire.Poll{
		State: m.State(), Joined: m.joined, In: m.in, Weight: m.Weight(), Next: m.ballotsAt,
		Cannot: m.unpolledFor(m.cfg.Detection),
	}
	o := m.members[id.Node]
	if o == nil || o.id != id {
		return w
	}
	w.Leased, w.Have = m.leased(o), o.ballotsHave
	m.tellOthers(o, w)
	w.Ballots = m.promisesSince(o.ballotsTold)
	return w
}

// promisesSince lists the ballots answered after a count of their changes. Most
// members need the same list, so the last one is kept.
func (m *Machine) promisesSince(told uint64) []wire.Promise {
	if told == m.ballotsAt {
		return nil
	}
	if c := &m.promises; c.after == told && c.to == m.ballotsAt {
		return c.list
	}
	at := map[*kv.Ballot]int{}
	var list []wire.Promise
	var sets [][]uint16
	for i := range m.parts {
		p := &m.parts[i]
		if p.changed <= told || p.promised == nil {
			continue
		}
		n, ok := at[p.promised]
		if !ok {
			n = len(list)
			at[p.promised] = n
			list, sets = append(list, wire.Promise{Ballot: *p.promised}), append(sets, nil)
		}
		sets[n] = append(sets[n], uint16(i))
	}
	for n := range list {
		list[n].Partitions = kv.PackPartitions(sets[n])
	}
	m.promises = promises{told, m.ballotsAt, list}
	return list
}
