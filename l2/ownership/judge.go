package ownership

import (
	"cmp"
	"time"
)

// judgeMembers decides which members are considered dead, and which are in the ring.
// A large ring grows once in a while, and not with each new member: if a hundred
// nodes begin together, each would compute a hundred rings, for as long as a lease
// lives.
func (m *Machine) judgeMembers() {
	grows := len(m.entered) < growAtOnce || m.now-m.grownAt >= m.cfg.Bound/growEvery
	for _, o := range m.members {
		o.wasIn = o.wasIn || o.in
		if !o.dead && o.missing && m.now-o.heardAt >= m.cfg.Detection {
			o.dead = true
			m.died(o, false)
			o.leasedAt, o.leasesUs = 0, false
		}
		switch {
		case o.dead || !o.in:
			o.inRing = false
		case !o.inRing && grows && m.leased(o):
			o.inRing = true
			m.grownAt = m.now
		}
	}
}

const (
	growAtOnce = 8  // members; rings up to this size cost little
	growEvery  = 16 // the part of the bound between two growths: a tick
)

// judgeSelf decides whether the node has joined, and whether it is in. It has joined once it knows a
// member that has, or has looked for one for long enough. It is in once it may own partitions.
func (m *Machine) judgeSelf() {
	if !m.joined {
		for _, o := range m.members {
			m.joined = m.joined || o.live() && o.joined
		}
		m.joined = m.joined || m.now-max(m.joiningSince, m.rumourAt) >= m.cfg.Detection
	}
	anyIn, unleased, silent := false, false, false // of the other live members
	for _, o := range m.members {
		if !o.live() {
			continue
		}
		// A member that is in must know of this node before it comes in, and this node of it.
		anyIn = anyIn || o.in
		unleased = unleased || o.in && !(o.leasesUs && m.leased(o))
		// This node cannot ask a member without a lease whether it begins as well: one of the two
		// must wait. A refused host that is restarted again and again is waited for once.
		silent = silent || !m.leased(o) && m.now-cmp.Or(o.strange, o.polledAt) < m.judgeAfter()
	}
	if anyIn {
		m.noOtherInSince = m.now
	}
	if m.in {
		if why := m.shouldGo(); why != "" {
			m.stop(why)
		}
		return
	}
	mayEnter := anyIn && !unleased
	mayBegin := !anyIn && !silent && (m.cfg.Bootstrap || m.now-m.noOtherInSince >= m.cfg.Detection)
	if m.joined && !m.leaving && (mayEnter || mayBegin) && m.shouldGo() == "" {
		m.in = true
		m.inSince = m.State()
		m.do(StateChanged{true, "joined"})
	}
}

// judgeAfter returns how long a member's polls must go unanswered until this node
// acts on it: by then all other members have told whether their polls go unanswered.
func (m *Machine) judgeAfter() time.Duration { return m.cfg.Detection + m.cfg.Bound*3/4 }
