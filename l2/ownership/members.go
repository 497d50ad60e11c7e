package ownership

import (
	"cmp"
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// member is another node, in the process that was last heard of.
type member struct {
	id     kv.Process
	weight uint32
	in     bool
	joined bool
	state  uint64 // counts their changes

	cameAt  time.Duration // when this process came, or came back
	heardAt time.Duration // last sign of life, on any path
	missing bool          // gossip says that it is dead
	dead    bool          // considered dead

	leasedAt  time.Duration // send time of the poll that gave our lease on it; zero: none
	polledAt  time.Duration // when a poll of it was last answered
	askedAt   time.Duration // when the last poll was sent that it has answered
	saidState uint64        // this node's state, in the polls that it has answered
	refused   bool          // one of the two refuses the other
	wasIn     bool          // it has been in, as far as this node knows
	strange   time.Duration // since when processes of its name are refused, none of which was in; zero: none
	leasesUs  bool          // it says that it has a lease on this node
	inRing    bool

	named      bool   // nothing has come from it: another member has told of it
	goneOut    bool   // gossip alone says that it is out: see GoneOut
	othersTold uint64 // its count of this node's changes of standings
	othersHave uint64 // this node's count of its changes of them

	ballotsTold uint64 // its count of this node's changes of ballots
	ballotsHave uint64 // this node's count of its changes of them

	unpolled   []kv.NodeID   // the nodes that it cannot poll
	unpolledAt time.Duration // when it has told that
}

// live says whether the member is not considered dead.
func (o *member) live() bool { return !o.dead }

// leased says whether this node has a lease on it, from a poll sent after it came.
func (m *Machine) leased(o *member) bool {
	return o.leasedAt > 0 && o.leasedAt >= o.cameAt && m.now-o.leasedAt < m.cfg.Bound
}

// others returns the other members, by name: a decision must not depend on the order
// of a map.
func (m *Machine) others() []*member {
	list := make([]*member, 0, len(m.members))
	for _, o := range m.members {
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b *member) int { return a.id.Compare(b.id) })
	return list
}

// Live lists the other members that are not considered dead.
func (m *Machine) Live() (list []kv.Process) {
	for _, o := range m.others() {
		if o.live() {
			list = append(list, o.id)
		}
	}
	return list
}

// AreIn lists the members that are in and not considered dead, this node included.
func (m *Machine) AreIn() (list []kv.Process) {
	if m.in {
		list = append(list, m.cfg.Self)
	}
	for _, o := range m.others() {
		if o.live() && o.in {
			list = append(list, o.id)
		}
	}
	return list
}

// current returns the member of a process, and adds it if it is new. A later process
// replaces an earlier one of its name at once. For an earlier process, current
// returns nil: the report of it was late. But if the known process is considered dead, a
// process that seems earlier was started by a clock that was set back.
func (m *Machine) current(id kv.Process) *member {
	if id.Node == m.cfg.Self.Node || m.gone.has(id) {
		return nil
	}
	o := m.members[id.Node]
	if o != nil && o.id == id {
		return o
	}
	if o != nil {
		if id.Epoch < o.id.Epoch && o.live() {
			return nil
		}
		m.gone.add(o.id, went{m.now, true})
		if o.live() {
			m.died(o, true)
		}
	}
	n := &member{id: id, cameAt: m.now, heardAt: m.now, polledAt: m.now}
	if o != nil && m.stranger(o) {
		n.strange = cmp.Or(o.strange, o.cameAt)
	}
	m.members[id.Node] = n
	return n
}

// stranger says whether a member lives, is refused, and has not been in. If another process
// takes its name now, that one has lived for less than the detection time: it is not in, but
// by the grant of others that are in.
func (m *Machine) stranger(o *member) bool {
	return o.live() && o.refused && !o.in && !o.wasIn && m.now-o.heardAt < m.cfg.Detection
}

// reinstate makes a process that had been replaced count again, if the other process of
// its name has left or is considered dead: what the process says itself is not late.
func (m *Machine) reinstate(id kv.Process) {
	if o := m.members[id.Node]; m.gone[id].replaced && (o == nil || o.dead) && !failpoint.Out(failpoint.Namesake) {
		delete(m.gone, id)
	}
}

// hear notes a sign of life. A member that was considered dead has come anew.
func (m *Machine) hear(o *member) {
	o.heardAt, o.named = m.now, false
	if o.dead {
		o.dead = false
		o.cameAt, o.polledAt, o.strange = m.now, m.now, 0
		o.leasesUs = false
	}
}

func (m *Machine) lives(n kv.NodeID) bool {
	o := m.members[n]
	return n == m.cfg.Self.Node || o != nil && o.live()
}

func (m *Machine) isIn(n kv.NodeID) bool {
	if n == m.cfg.Self.Node {
		return m.in
	}
	return m.members[n].in
}

// Forget drops a member that is considered dead and was silent for at least the given
// time. It says whether the member is unknown now.
//
// A member that is considered dead blocks nothing, so forgetting it lets nothing
// begin that could not begin before. This node's promises and votes stay: they belong
// to partitions, not to members, and the voters are a fixed list. If the same process
// is heard again, it comes as any other does: without a lease, and into the ring only
// once there is a lease.
func (m *Machine) Forget(now time.Duration, node kv.NodeID, silence time.Duration) bool {
	m.now = max(m.now, now)
	o := m.members[node]
	if o != nil {
		if !failpoint.Out(failpoint.ForgetDead) && (o.live() || m.now-o.heardAt < silence) {
			return false
		}
		delete(m.members, node)
		m.settle()
	}
	return true
}

// died says that a member is considered dead. The end of one that was refused, and never
// in, takes nothing away.
func (m *Machine) died(o *member, again bool) {
	if !o.refused || o.wasIn {
		m.do(Died{o.id, m.now - o.heardAt, again})
	}
}

// Standing returns what a node has told about itself, and whether its process has been in,
// as far as this node knows.
func (m *Machine) Standing(node kv.NodeID) (s wire.Standing, wasIn bool) {
	o := m.members[node]
	if o == nil {
		return s, false
	}
	return wire.Standing{Process: o.id, State: o.state, Weight: o.weight, In: o.in}, o.wasIn
}

// Silence returns how long a member has been silent, and whether it is considered
// dead. An unknown member counts as dead.
func (m *Machine) Silence(now time.Duration, node kv.NodeID) (silence time.Duration, dead bool) {
	if o := m.members[node]; o != nil {
		return now - o.heardAt, o.dead
	}
	return 0, true
}
