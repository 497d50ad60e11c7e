package ownership

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// retireFor returns how long a retired ownership waits for an ACQUIRE: for longer than a
// claim waits for a member that does not answer. If the ring
// names this node itself, the asker did not know all members yet: it asks again for
// B/2, and no longer.
func (m *Machine) retireFor(i uint16) time.Duration {
	if m.table.Owner(i) == m.cfg.Self.Node {
		return m.cfg.Bound * 3 / 4
	}
	return m.judgeAfter() + m.cfg.Bound/2
}

// retire stops an ownership from serving.
func (m *Machine) retire(p *partition) {
	p.retired = m.now
	m.retireAt = m.now // endRetired looks at it next
}

func (m *Machine) endRetired() {
	if m.retireAt == 0 || m.now < m.retireAt {
		return
	}
	m.retireAt = 0
	set := m.newSet()
	for i := range m.parts {
		p := &m.parts[i]
		if !p.owned || p.retired == 0 {
			continue
		}
		if ends := p.retired + m.retireFor(uint16(i)); m.now >= ends {
			set.Add(uint16(i))
		} else if m.retireAt == 0 || ends < m.retireAt {
			m.retireAt = ends
		}
	}
	m.endOwnership(set, "retired, and no other node has asked for it")
}

// endOwnership ends the ownerships of a set, with no successor to hand over to.
func (m *Machine) endOwnership(set kv.PartitionSet, why string) {
	if set.Empty() {
		return
	}
	m.claimAt = 0
	for i := range set.All() {
		p := &m.parts[i]
		p.owned, p.retired, p.higher, p.released = false, 0, nil, nil
	}
	m.do(Ended{set, m.newSet(), why})
}

// stop ends all ownerships, gives up all claims and leaves the ring.
func (m *Machine) stop(why string) {
	set := m.newSet()
	for i := range m.parts {
		if m.parts[i].owned {
			set.Add(uint16(i))
		}
		m.giveUp(uint16(i))
	}
	m.endOwnership(set, why)
	m.rounds = nil
	if m.in {
		m.in = false
		m.noOtherInSince = m.now
		m.do(StateChanged{false, why})
	}
}
