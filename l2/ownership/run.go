package ownership

import (
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
)

// Tick lets time pass. It is due every B/16 or so, and after every batch of other
// calls.
func (m *Machine) Tick(now time.Duration) {
	m.now = max(m.now, now)
	m.settle()
}

// settle draws all consequences of what has changed.
func (m *Machine) settle() {
	m.endLapsed()
	m.judgeMembers()
	m.judgeSelf()
	m.judgeStay()
	m.judgeRing()
	m.endRetired()
	m.decide()
	m.claimMore()
	m.decide() // a claim that needs no answer is decided at once
	m.resend()
	m.pollVoters()
}

// Stall takes a stall in the boot clock of more than the part StallAbove of the bound. It
// must be called before anything else is answered. A stall of B or more is a pause.
// Several stalls are a pause if their sum within the detection time reaches B, unless
// every member that is not considered dead has answered a poll that was sent within
// B: such a member cannot consider this node dead yet. In case of a pause, Stall has
// called Pause and returns how long the process did not run. A node that knows no other
// pauses too: another may have started meanwhile, and heard nothing of it.
//
// After a long stall that is no pause, the timers of others' silence continue from
// where they stood: silence counts only while the node runs.
func (m *Machine) Stall(now, length time.Duration) (stop Stoppage, paused bool) {
	m.now = max(m.now, now)
	m.stalls.add(m.now, length)
	stop, counts := m.stalls.sum()
	if length >= m.cfg.Bound {
		stop, paused = Stoppage{For: length, Stalls: 1}, true
	} else if counts >= m.cfg.Bound && !failpoint.Out(failpoint.Stutter) {
		paused = m.unanswered() || failpoint.Out(failpoint.Answered)
	}
	if paused && !failpoint.Out(failpoint.Pause) {
		m.Pause(now)
		return stop, true
	}
	if length > m.cfg.Bound/SleepOver && !failpoint.Out(failpoint.RunningTime) {
		m.shiftTimers(length)
	}
	return Stoppage{}, false
}

// unanswered says whether some member that is not considered dead has answered no
// poll that was sent within B.
func (m *Machine) unanswered() bool {
	for _, o := range m.members {
		if o.live() && m.now-o.askedAt >= m.cfg.Bound {
			return true
		}
	}
	return false
}

// shiftTimers moves the timers of others' silence. Leases, authority, votes, polls and the
// time since the process began follow the clock.
func (m *Machine) shiftTimers(length time.Duration) {
	move := func(t *time.Duration) { *t = min(*t+length, m.now) }
	for _, o := range m.members {
		move(&o.heardAt)
	}
	move(&m.joiningSince)
	move(&m.noOtherInSince)
}

// Pause applies the consequences of a pause: all ownerships have ended, answers to
// earlier requests do not count, and silence during the pause proves nothing.
func (m *Machine) Pause(now time.Duration) {
	m.now = max(m.now, now)
	m.stop(WhyPaused)
	for _, o := range m.members {
		o.heardAt, o.polledAt, o.strange = m.now, m.now, 0
		o.leasedAt, o.leasesUs, o.unpolled = 0, false, nil
	}
	m.stalls.clear()
	m.startJoining()
	m.settle()
}

// Leave begins a graceful leave: the node's weight is zero from now on, so that other
// nodes take what it owns. Unended returns 0 once that is done.
func (m *Machine) Leave(now time.Duration) {
	m.now = max(m.now, now)
	m.leaving, m.stays = true, false
	m.do(StateChanged{m.in, "leaving"})
	m.settle()
}

// Abandon ends what Leave has retired, at once: no other node is there to ask for it.
func (m *Machine) Abandon(now time.Duration) {
	m.now = max(m.now, now)
	set := m.newSet()
	for i := range m.parts {
		if p := &m.parts[i]; p.owned && p.retired != 0 {
			set.Add(uint16(i))
		}
	}
	m.endOwnership(set, "this node leaves, and no other is there")
	m.settle()
}

// Stay takes Leave back: the node offers its weight again once other nodes have taken
// over what Leave has retired, or has had the time to. What is retired never serves again, and while
// the ring names this node, no other node asks for it.
func (m *Machine) Stay(now time.Duration) {
	m.now = max(m.now, now)
	m.stays = m.leaving
	m.settle()
}

// judgeStay carries out Stay once nothing is retired that another node could take over.
func (m *Machine) judgeStay() {
	if !m.stays || m.Heirs() && m.anyRetired() {
		return
	}
	m.leaving, m.stays = false, false
	m.do(StateChanged{m.in, "staying"})
}

func (m *Machine) anyRetired() bool {
	return slices.ContainsFunc(m.parts, func(p partition) bool { return p.owned && p.retired != 0 })
}

// Heirs reports whether another live member would own what this node owns if the node
// left.
func (m *Machine) Heirs() bool {
	for _, o := range m.members {
		if o.inRing && o.live() && o.weight > 0 {
			return true
		}
	}
	return false
}

// Hopes reports whether another live member takes what this node gives up, or may do so once it is in: a process
// that has never been in is about to join, and one that has been and is not any more leaves.
func (m *Machine) Hopes() bool {
	for _, o := range m.members {
		if o.live() && !o.wasIn {
			return true
		}
	}
	return m.Heirs()
}

// Stop ends everything at once, for a process that is about to exit.
func (m *Machine) Stop(now time.Duration) {
	m.now = max(m.now, now)
	m.leaving, m.stays = true, false
	m.stop("stopped")
	m.settle()
}

// SetWeight changes the weight that the node offers.
func (m *Machine) SetWeight(now time.Duration, weight uint32) {
	m.now = max(m.now, now)
	if m.cfg.Weight != weight {
		m.cfg.Weight = weight
		m.do(StateChanged{m.in, "weight"})
		m.settle()
	}
}
