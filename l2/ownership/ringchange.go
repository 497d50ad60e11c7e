package ownership

import (
	"maps"
	"slices"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// judgeRing recomputes the ring if its members have changed, and retires the
// partitions that the ring no longer gives to this node.
func (m *Machine) judgeRing() {
	if !m.ringDiffers() {
		return
	}
	m.weights = map[kv.Process]uint32{}
	if m.in {
		m.weights[m.cfg.Self] = m.Weight()
	}
	for _, o := range m.members {
		if o.inRing {
			m.weights[o.id] = o.weight
		}
	}
	m.entered = slices.SortedFunc(maps.Keys(m.weights), kv.Process.Compare)
	var list []RingMember
	for _, id := range m.entered {
		list = append(list, RingMember{id.Node, m.weights[id]})
	}
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
// have. It makes no list of them, since it runs with every message.
func (m *Machine) ringDiffers() bool {
	in := 0
	differs := func(id kv.Process, weight uint32) bool {
		in++
		w, ok := m.weights[id]
		return !ok || w != weight
	}
	if m.in && differs(m.cfg.Self, m.Weight()) {
		return true
	}
	for _, o := range m.members {
		if o.inRing && differs(o.id, o.weight) {
			return true
		}
	}
	return in != len(m.weights) // one of them is no longer known
}
