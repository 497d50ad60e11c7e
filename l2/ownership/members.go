package ownership

import (
	"slices"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
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

	leasedAt time.Duration // send time of the poll that gave our lease on it; zero: none
	polledAt time.Duration // when a poll of it was last answered
	askedAt  time.Duration // when the last poll was sent that it has answered
	leasesUs bool          // it says that it has a lease on this node
	inRing   bool

	inTable     bool // the ring's table has this process, with tableWeight
	tableWeight uint32

	named      bool   // nothing has come from it: another member has told of it
	goneOut    bool   // gossip alone says that it is out: see GoneOut
	othersTold uint64 // its count of this node's changes of standings
	othersHave uint64 // this node's count of its changes of them

	told  uint64 // its count of this node's changes of ballots
	heard uint64 // this node's count of its changes of them
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
// returns nil: word of it was late. But if the known process is considered dead, a
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
			m.do(Died{o.id, m.now - o.heardAt, true})
		}
	}
	o = &member{id: id, cameAt: m.now, heardAt: m.now, polledAt: m.now}
	m.members[id.Node] = o
	m.met = true
	return o
}

// speaks makes a process that had been replaced count again, if the other process of
// its name has left or is considered dead: what the process says itself is not late.
func (m *Machine) speaks(id kv.Process) {
	if o := m.members[id.Node]; m.gone[id].replaced && (o == nil || o.dead) && !failpoint.Out(failpoint.Namesake) {
		delete(m.gone, id)
	}
}

// Seen takes gossip's word of a live member, with its State as in Info. If gossip has
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

// Missing takes gossip's word that a member is dead.
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

// Heard says that something has come from a process.
func (m *Machine) Heard(now time.Duration, id kv.Process) {
	m.now = max(m.now, now)
	if o := m.current(id); o != nil {
		m.hear(o)
	}
}

// hear notes a sign of life. A member that was considered dead has come anew.
func (m *Machine) hear(o *member) {
	o.heardAt, o.named = m.now, false
	if o.dead {
		o.dead = false
		o.cameAt, o.polledAt = m.now, m.now
		o.leasesUs = false
	}
}

// Polled says that a poll of a process, sent at some time, has been answered with
// some Info.
func (m *Machine) Polled(now time.Duration, id kv.Process, sent time.Duration, info Info) {
	m.now = max(m.now, now)
	m.speaks(id)
	o := m.current(id)
	if o == nil {
		return
	}
	m.hear(o)
	o.polledAt, o.askedAt = m.now, max(o.askedAt, sent)
	m.learn(o, info)
	m.settle()
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
	m.speaks(id)
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
		m.hearOf(b)
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

// judgeMembers decides which members are considered dead, and which are in the ring.
// A large ring grows once in a while, and not with each new member: if a hundred
// nodes begin together, each would compute a hundred rings, for as long as a lease
// lives.
func (m *Machine) judgeMembers() {
	grows := len(m.entered) < growAtOnce || m.now-m.grownAt >= m.cfg.Bound/growEvery
	for _, o := range m.members {
		if !o.dead && o.missing && m.now-o.heardAt >= m.cfg.Detection {
			o.dead = true
			m.do(Died{o.id, m.now - o.heardAt, false})
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

// judgeSelf decides whether the node has joined, and whether it is in.
func (m *Machine) judgeSelf() {
	if !m.joined {
		for _, o := range m.members {
			m.joined = m.joined || o.live() && o.joined
		}
		m.joined = m.joined || m.now-max(m.startedAt, m.rumourAt) >= m.cfg.Detection
	}
	anyIn, allLeased, first := false, true, true
	for _, o := range m.members {
		if o.live() && o.in {
			anyIn = true
			allLeased = allLeased && o.leasesUs && m.leased(o)
		}
		if o.live() && !m.leased(o) {
			// The member lives, and this node cannot ask whether it
			// begins as well: one of the two must wait.
			first = first && m.now-o.polledAt >= m.judgeAfter()
		}
	}
	if anyIn {
		m.aloneFrom = m.now
	}
	switch {
	case m.in:
		if why := m.shouldGo(); why != "" {
			m.stop(why)
		}
	case !m.joined || m.refused != "" || m.leaving:
	case anyIn && !allLeased, !anyIn && !first, m.shouldGo() != "":
	case anyIn, m.cfg.Alone || m.now-m.aloneFrom >= m.cfg.Detection:
		m.in = true
		m.do(StateChanged{true, "joined"})
	}
}

// Unpolled lists the live members whose polls have not been answered for the
// detection time, although gossip does not report them missing.
func (m *Machine) Unpolled() []kv.NodeID { return m.unpolledFor(m.cfg.Detection) }

// judgeAfter returns how long a member's polls must go unanswered until this node
// acts on it: by then all other members have told whether their polls go unanswered.
func (m *Machine) judgeAfter() time.Duration { return m.cfg.Detection + m.cfg.Bound*3/4 }

func (m *Machine) unpolledFor(d time.Duration) (list []kv.NodeID) {
	for _, o := range m.members {
		if o.live() && !o.missing && m.now-o.polledAt >= d {
			list = append(list, o.id.Node)
		}
	}
	slices.Sort(list)
	return list
}

// Cannot takes the report that a member cannot poll some others.
func (m *Machine) Cannot(now time.Duration, from kv.NodeID, nodes []kv.NodeID) {
	m.now = max(m.now, now)
	if _, known := m.cannot[from]; len(nodes) == 0 && !known {
		return
	}
	m.cannot[from] = report{nodes, m.now}
	m.settle()
}

// badPairs returns the pairs of live members of which one cannot poll the other: as
// other members tell, and as this node knows after some time.
func (m *Machine) badPairs(after time.Duration) map[[2]kv.NodeID]bool {
	pairs := map[[2]kv.NodeID]bool{}
	pair := func(a, b kv.NodeID) {
		if m.lives(a) && m.lives(b) {
			pairs[[2]kv.NodeID{min(a, b), max(a, b)}] = true
		}
	}
	for _, n := range m.unpolledFor(after) {
		pair(m.cfg.Self.Node, n)
	}
	for from, r := range m.cannot {
		if m.now-r.at >= m.cfg.Detection {
			delete(m.cannot, from)
			continue
		}
		for _, n := range r.nodes {
			pair(from, n)
		}
	}
	return pairs
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

// shouldGo says why the node must be out; empty: it may be in. Of each pair in which
// a poll fails, one member goes: the one in more such pairs, else the one that is out
// already, else the one with the greater name. No two members that stay are such a
// pair.
func (m *Machine) shouldGo() string {
	pairs := m.badPairs(m.judgeAfter())
	if len(pairs) == 0 {
		return ""
	}
	degree := map[kv.NodeID]int{}
	for p := range pairs {
		degree[p[0]]++
		degree[p[1]]++
	}
	self := m.cfg.Self.Node
	for p := range pairs {
		other := p[0]
		if p[0] == self {
			other = p[1]
		} else if p[1] != self {
			continue
		}
		goes := self > other
		switch {
		case degree[self] != degree[other]:
			goes = degree[self] > degree[other]
		case m.isIn(self) != m.isIn(other):
			goes = m.isIn(other)
		}
		if goes {
			return "it cannot poll, or be polled by, " + string(other)
		}
	}
	return ""
}

// Trouble says why a node, this one or another, is not in although it lives. It is
// empty if nothing is known to be wrong with the node.
func (m *Machine) Trouble(node kv.NodeID) string {
	if !m.lives(node) || m.isIn(node) {
		return ""
	}
	var others []string
	for p := range m.badPairs(m.cfg.Detection) {
		switch node {
		case p[0]:
			others = append(others, string(p[1]))
		case p[1]:
			others = append(others, string(p[0]))
		}
	}
	if len(others) == 0 {
		return ""
	}
	slices.Sort(others)
	return "it cannot poll, or be polled by, " + strings.Join(others, ", ")
}
