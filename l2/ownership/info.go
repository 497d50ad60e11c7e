package ownership

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Seen takes gossip's report of a live member, with its State as in Info. If gossip has
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

// Polled says that a poll of a process has been answered with some Info. The poll was sent
// at some time, and has said a State.
func (m *Machine) Polled(now time.Duration, id kv.Process, sent time.Duration, said uint64, info Info) {
	m.now = max(m.now, now)
	m.reinstate(id)
	o := m.current(id)
	if o == nil {
		return
	}
	m.hear(o)
	o.polledAt, o.askedAt, o.said, o.strange = m.now, max(o.askedAt, sent), max(o.said, said), 0
	m.learn(o, info)
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

// PolledBy says that a process polls this node, and with what Info. The answer is
// what InfoFor returns.
func (m *Machine) PolledBy(now time.Duration, id kv.Process, info Info) {
	m.now = max(m.now, now)
	m.reinstate(id)
	if o := m.current(id); o != nil {
		m.hear(o)
		m.learn(o, info)
		m.settle()
	}
}

func (m *Machine) learn(o *member, info Info) {
	if info.State >= o.state {
		o.state, o.joined, o.in, o.weight = info.State, info.Joined, info.In, info.Weight
		o.goneOut = false
	}
	o.leasesUs = info.Leased
	for _, b := range info.Ballots {
		m.retireBelow(b)
	}
	o.heard = max(o.heard, info.Next)
	o.told = max(o.told, info.Have)
	m.learnOthers(o, &info)
}

// InfoFor returns what a poll of a process, or the answer to its poll, tells it.
func (m *Machine) InfoFor(id kv.Process) Info {
	info := Info{State: m.State(), Joined: m.joined, In: m.in, Weight: m.Weight(), Next: m.seq}
	o := m.members[id.Node]
	if o == nil || o.id != id {
		return info
	}
	info.Leased, info.Have = m.leased(o), o.heard
	m.tellOthers(o, &info)
	info.Ballots = m.promisesSince(o.told)
	return info
}

// promisesSince lists the ballots answered after a count of their changes. Most
// members need the same list, so the last one is kept.
func (m *Machine) promisesSince(told uint64) []Promise {
	if told == m.seq {
		return nil
	}
	if c := &m.promises; c.after == told && c.to == m.seq {
		return c.list
	}
	at := map[*Ballot]int{}
	var list []Promise
	for i := range m.parts {
		p := &m.parts[i]
		if p.changed <= told || p.promised == nil {
			continue
		}
		n, ok := at[p.promised]
		if !ok {
			n = len(list)
			at[p.promised] = n
			list = append(list, Promise{Ballot: p.promised})
		}
		list[n].Partitions = append(list[n].Partitions, uint16(i))
	}
	m.promises = promises{told, m.seq, list}
	return list
}
