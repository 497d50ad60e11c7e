package ownership

import (
	"cmp"
	"slices"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// judgeRing recomputes the ring if its members have changed, and retires the
// partitions that the ring no longer gives to this node.
func (m *Machine) judgeRing() {
	if !m.ringDiffers() {
		return
	}
	var list []RingMember
	m.entered = nil
	if m.in {
		list = append(list, RingMember{Node: m.cfg.Self.Node, Weight: m.Weight()})
		m.entered = append(m.entered, m.cfg.Self)
	}
	for _, o := range m.members {
		o.inTable, o.tableWeight = o.inRing, o.weight
		if o.inRing {
			list = append(list, RingMember{Node: o.id.Node, Weight: o.weight})
			m.entered = append(m.entered, o.id)
		}
	}
	slices.SortFunc(m.entered, kv.Process.Compare)
	slices.SortFunc(list, func(a, b RingMember) int { return cmp.Compare(a.Node, b.Node) })
	m.inTable, m.tableWeight = m.in, m.Weight()
	old := m.table
	m.table = m.cfg.Table(list)
	for i := range m.parts {
		if was := old.Owner(uint16(i)); was != "" && was != m.table.Owner(uint16(i)) {
			m.parts[i].before = was
		}
	}
	if m.retireAt > 0 {
		m.retireAt = m.now
	}
	m.do(RingChanged{})
	m.claimAt = 0
	retired := m.newSet()
	for i := range m.parts {
		if p := &m.parts[i]; m.table.Owner(uint16(i)) != m.cfg.Self.Node {
			if p.owned && p.retired == 0 {
				m.retire(p)
				retired.Add(uint16(i))
			}
			m.giveUp(uint16(i))
		}
	}
	if !retired.Empty() {
		m.do(Retired{retired, "the ring names another"})
	}
}

// ringDiffers says whether the members of the table differ from those the ring should
// have. It compares each member in place, since it runs with every message.
func (m *Machine) ringDiffers() bool {
	if m.in != m.inTable || m.in && m.Weight() != m.tableWeight {
		return true
	}
	in := 0
	if m.in {
		in++
	}
	for _, o := range m.members {
		if o.inRing != o.inTable || o.inRing && o.weight != o.tableWeight {
			return true
		}
		if o.inRing {
			in++
		}
	}
	return in != len(m.entered) // one of them is no longer known
}
