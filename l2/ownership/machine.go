package ownership

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/l2/ring"
)

// Config is the configuration of a Machine.
type Config struct {
	Self   kv.Process
	Weight uint32 // of this node, in a unit that all nodes share

	// Bound is B: how long after it was overwritten a value may be served.
	Bound time.Duration
	// Detection is D: the silence after which a member that gossip says is dead
	// is considered dead. At least 1.5 B.
	Detection time.Duration
	// Alone means that there are no other nodes to look for: the node begins at
	// once.
	Alone bool

	// Voters are the nodes of which a majority must acknowledge every ownership,
	// under policy consistent. Empty means policy available.
	Voters []kv.NodeID

	// Partitions is the number of partitions; tests use a smaller one. Default:
	// kv.Partitions.
	Partitions int
	// Table computes the ring. Default: ring.New.
	Table func([]ring.Member) *ring.Table
	// Stamp returns a version above all that the node has seen.
	Stamp func() kv.Version
	// Rand spreads actions that would otherwise collide. Required.
	Rand *rand.Rand
}

// Machine is one node's view of the members and of the ownership of partitions. It is
// not safe for concurrent use.
type Machine struct {
	cfg Config
	out []Action

	// The node itself.
	now       time.Duration
	bornAt    time.Duration // start of the process
	startedAt time.Duration // start of the search for other nodes
	joined    bool
	in        bool
	leaving   bool
	refused   string        // the reason why it may not be in; empty: none
	state     uint64        // counts the changes of what it tells about itself
	told      [3]any        // what it told at the last count
	aloneFrom time.Duration // since then no other member is in
	rumourAt  time.Duration // last rumour of an unmet process that counts: see Rumour
	stops     stops         // since the last pause
	met       bool          // another member has ever been known
	standings []Standing    // what it has heard of other members, as last told
	othersAt  uint64        // counts the changes of standings

	members map[kv.NodeID]*member
	gone    gone
	cannot  map[kv.NodeID]report

	table       *ring.Table
	entered     []kv.Process  // the ring's members, by name
	grownAt     time.Duration // when a member last came into the ring
	inTable     bool          // this node is in the table, with tableWeight
	tableWeight uint32

	// Partitions.
	parts  []partition
	claims []*claim
	// Earlier than these times a scan of all partitions finds nothing. Time
	// passes in many small steps, most of which concern no partition.
	claimAt  time.Duration // no claim is possible before
	retireAt time.Duration // no retired ownership ends before; zero: none is retired
	seq      uint64        // counts the changes of promised ballots
	promises promises      // told last

	// Of policy consistent.
	votes    []vote
	rounds   []*round
	numbers  uint64        // of rounds, given out
	polledAt time.Duration // when the last round for all ownerships began
	lapseAt  time.Duration // no ownership's authority ends before
}

// promises are the ballots answered between two counts of their changes.
type promises struct {
	after, to uint64
	list      []Promise
}

// partition is what the node knows and does about one partition.
type partition struct {
	owned    bool
	ballot   *Ballot       // of the ownership
	until    time.Duration // end of its authority
	retired  time.Duration // since when it no longer serves; zero: it serves
	told     *Ballot       // the higher ballot that retired it, once heard of
	promised *Ballot       // the highest answered, this node's own included
	saidAt   time.Duration // when promised was last answered
	changed  uint64        // seq of the last change of promised
	released *Ballot       // the ballot that ended the last ownership, which had entries
	claim    *claim        // the claim under way for it
	retryAt  time.Duration // no new claim before
	before   kv.NodeID     // the assigned owner before the present one
}

// claim is an attempt to take some partitions under one ballot. All of them had the
// same assigned owner before. That owner is asked last: it gives up what it grants,
// and its entries are for this ballot alone, so no other member may refuse the ballot
// afterwards.
type claim struct {
	ballot   *Ballot
	set      kv.PartitionSet
	last     kv.NodeID
	lastSent bool // the last member has been asked, or there is none
	answers  map[kv.NodeID]*Answer
	epochs   map[kv.NodeID]kv.Epoch      // of the members that have answered
	notedAt  map[kv.NodeID]time.Duration // since when each grants what it does
	polling  bool                        // waits for a majority of voters
	began    time.Duration
	sentAt   time.Duration
	lastAt   time.Duration // when the last member was asked
	refused  time.Duration // since when a member refuses part of it; zero: none does
}

type report struct {
	nodes []kv.NodeID
	at    time.Duration
}

// New returns the machine of a node that has just started.
func New(cfg Config, now time.Duration) *Machine {
	cfg.Partitions = cmp.Or(cfg.Partitions, kv.Partitions)
	if cfg.Table == nil {
		cfg.Table = ring.New
	}
	m := &Machine{
		cfg: cfg, now: now, bornAt: now, lapseAt: never,
		members: map[kv.NodeID]*member{}, gone: gone{}, cannot: map[kv.NodeID]report{},
		parts: make([]partition, cfg.Partitions), stops: stops{bound: cfg.Bound, window: cfg.Detection},
	}
	m.table = cfg.Table(nil)
	m.restart()
	return m
}

// restart puts the node back to the start.
func (m *Machine) restart() {
	m.startedAt, m.aloneFrom = m.now, m.now
	m.joined, m.in = m.cfg.Alone, false
}

// Take returns the actions to carry out, in order, and forgets them.
func (m *Machine) Take() []Action {
	out := m.out
	m.out = nil
	return out
}

func (m *Machine) do(a Action) { m.out = append(m.out, a) }

// Joined, In and Leaving return the node's state: see the package comment.
func (m *Machine) Joined() bool  { return m.joined }
func (m *Machine) In() bool      { return m.in }
func (m *Machine) Leaving() bool { return m.leaving }

// State counts the changes of what the node tells about itself.
func (m *Machine) State() uint64 {
	if now := [3]any{m.joined, m.in, m.Weight()}; now != m.told {
		m.told = now
		m.state++
	}
	return m.state
}

// Weight returns the weight that the node offers; zero while it leaves.
func (m *Machine) Weight() uint32 {
	if m.leaving {
		return 0
	}
	return m.cfg.Weight
}

// Refused returns the reason why the node may not be in; empty: none.
func (m *Machine) Refused() string { return m.refused }

// Table returns the ring as this node sees it.
func (m *Machine) Table() *ring.Table { return m.table }

// Entered returns the processes of the ring's members, by name.
func (m *Machine) Entered() []kv.Process { return m.entered }

// Serves says whether the node owns a partition and may answer for it.
func (m *Machine) Serves(p uint16) bool { return m.parts[p].owned && m.parts[p].retired == 0 }

// OwnershipEpoch says whether any ownership, serving or retired, has not ended.
func (m *Machine) OwnershipEpoch() bool {
	return slices.ContainsFunc(m.parts, func(p partition) bool { return p.owned })
}

// Unended counts the ownerships, serving or retired, that have not ended.
func (m *Machine) Unended() int {
	n := 0
	for i := range m.parts {
		if m.parts[i].owned {
			n++
		}
	}
	return n
}

// Acquiring says whether the node is about to take a partition.
func (m *Machine) Acquiring(p uint16) bool { return m.parts[p].claim != nil }

func (m *Machine) newSet() kv.PartitionSet { return kv.NewPartitionSet(m.cfg.Partitions) }

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
	m.judgeRing()
	m.endRetired()
	m.decide()
	m.claimMore()
	m.decide() // a claim that needs no answer is decided at once
	m.resend()
	m.pollVoters()
}

// judgeRing recomputes the ring if its members have changed, and retires the
// partitions that the ring no longer gives to this node.
func (m *Machine) judgeRing() {
	if !m.ringDiffers() {
		return
	}
	var list []ring.Member
	m.entered = nil
	if m.in {
		list = append(list, ring.Member{Node: m.cfg.Self.Node, Weight: m.Weight()})
		m.entered = append(m.entered, m.cfg.Self)
	}
	for _, o := range m.members {
		o.inTable, o.tableWeight = o.inRing, o.weight
		if o.inRing {
			list = append(list, ring.Member{Node: o.id.Node, Weight: o.weight})
			m.entered = append(m.entered, o.id)
		}
	}
	slices.SortFunc(m.entered, kv.Process.Compare)
	slices.SortFunc(list, func(a, b ring.Member) int { return cmp.Compare(a.Node, b.Node) })
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

// retireFor returns how long a retired ownership waits for an ACQUIRE. If the ring
// names this node itself, the asker did not know all members yet: it asks again for
// B/2, and no longer.
func (m *Machine) retireFor(i uint16) time.Duration {
	if m.table.Owner(i) == m.cfg.Self.Node {
		return m.cfg.Bound * 3 / 4
	}
	return 2 * m.cfg.Bound
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
	m.end(set, "retired, and nobody has asked for it")
}

// end ends the ownerships of a set, with no successor to hand over to.
func (m *Machine) end(set kv.PartitionSet, why string) {
	if set.Empty() {
		return
	}
	m.claimAt = 0
	for i := range set.All() {
		p := &m.parts[i]
		p.owned, p.retired, p.told, p.released = false, 0, nil, nil
	}
	m.do(Ended{set, why})
}

// Pause applies the consequences of a pause: all ownerships have ended, answers to
// earlier requests do not count, and silence during the pause proves nothing.
func (m *Machine) Pause(now time.Duration) {
	m.now = max(m.now, now)
	m.stop(WhyPaused)
	for _, o := range m.members {
		o.heardAt, o.polledAt = m.now, m.now
		o.leasedAt, o.leasesUs = 0, false
	}
	clear(m.cannot)
	m.stops.clear()
	m.restart()
	m.settle()
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
	m.end(set, why)
	m.rounds = nil
	if m.in {
		m.in = false
		m.aloneFrom = m.now
		m.do(StateChanged{false, why})
	}
}

// Leave begins a graceful leave: the node's weight is zero from now on, so that other
// nodes take what it owns. OwnershipEpoch returns false once that is done.
func (m *Machine) Leave(now time.Duration) {
	m.now = max(m.now, now)
	m.leaving = true
	m.do(StateChanged{m.in, "leaving"})
	m.settle()
}

// Stop ends everything at once, for a process that is about to exit.
func (m *Machine) Stop(now time.Duration) {
	m.now = max(m.now, now)
	m.leaving = true
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

// Refuse keeps the node out, because other nodes refuse it or its clock differs from
// theirs. An empty reason lets it in again.
func (m *Machine) Refuse(now time.Duration, why string) {
	m.now = max(m.now, now)
	if m.refused == why {
		return
	}
	m.refused = why
	if why != "" {
		m.stop(why)
	}
	m.settle()
}
