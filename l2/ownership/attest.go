package ownership

import (
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// A report by gossip of a process that this node has not met has no effect: any
// stranger can send it. An owner must count here even if this node cannot reach it,
// and all rings must become the same. So members attest each other: polls and their
// answers carry what the sender has itself heard from members, if the receiver does
// not know that yet.

// heardOf lists the members that this node attests.
func (m *Machine) heardOf() (list []wire.Standing) {
	list = append(list, wire.Standing{Process: m.cfg.Self, State: m.State(), Weight: m.Weight(), In: m.in})
	for _, o := range m.members {
		if o.live() && o.state > 0 && !o.named {
			list = append(list, wire.Standing{Process: o.id, State: o.state, Weight: o.weight, In: o.in || o.goneOut})
		}
	}
	slices.SortFunc(list, func(a, b wire.Standing) int { return a.Process.Compare(b.Process) })
	return list
}

// tellOthers adds to a member's poll what this node has heard of other members.
func (m *Machine) tellOthers(o *member, w *wire.Poll) {
	if list := m.heardOf(); !slices.Equal(list, m.standings) {
		m.standings = list
		m.othersAt++
	}
	w.OthersAt, w.OthersHave = m.othersAt, o.othersHave
	if o.othersTold != m.othersAt && !failpoint.Out(failpoint.Attest) {
		w.Others = m.standings
	}
}

// learnOthers takes what a member has heard of others.
func (m *Machine) learnOthers(o *member, w *wire.Poll) {
	o.othersTold = w.OthersHave
	if w.OthersAt <= o.othersHave { // nothing new, or late
		return
	}
	o.othersHave = w.OthersAt
	for _, s := range w.Others {
		m.attested(s)
	}
}

// GoneOut says that gossip reports a member that this node cannot hear as out;
// state is the count that gossip tells with it. The report counts here until the member
// tells something. The member's own count stays, and other members are told what it
// has said itself. Otherwise a stranger's message would also count for members that
// hear the member, and for ever.
func (m *Machine) GoneOut(now time.Duration, id kv.Process, state uint64) {
	m.now = max(m.now, now)
	o := m.members[id.Node]
	if o == nil || o.id != id || !o.in {
		return
	}
	o.in, o.goneOut = false, true
	if failpoint.Out(failpoint.Hearsay) {
		o.state, o.goneOut = state, false
	}
	m.settle()
}

// attested takes what another member attests about a process. A process that is in
// becomes a member. Nothing has come from it, so unless gossip hears it, it counts
// until its silence has lasted. What a member has said last counts, whichever member
// heard it.
func (m *Machine) attested(s wire.Standing) {
	o := m.members[s.Process.Node]
	switch {
	case o != nil && o.id == s.Process:
		if s.State > o.state {
			o.state, o.weight, o.in, o.goneOut = s.State, s.Weight, s.In, false
		}
	case s.In:
		if o := m.current(s.Process); o != nil {
			o.state, o.weight, o.in = s.State, s.Weight, true
			o.missing, o.named = true, true
		}
	}
}

// rumourFor is for how many detection times, from the start of its search for others,
// rumours can keep a node from beginning alone.
const rumourFor = 4

// Rumour says that gossip tells of a process that is in and that this node has not
// met. A node that would begin alone, or answer for all as if it were alone, waits
// for that process, but not for ever: it may be invented.
func (m *Machine) Rumour(now time.Duration) {
	m.now = max(m.now, now)
	if !m.in && m.now-m.joiningSince < rumourFor*m.cfg.Detection {
		m.noOtherInSince, m.rumourAt = m.now, m.now
	}
}
