package ownership

import (
	"cmp"
	"math/rand/v2"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
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
	// Bootstrap means that there are no other nodes to look for: the node begins at
	// once.
	Bootstrap bool

	// Voters are the nodes of which a majority must acknowledge every ownership,
	// under policy consistent. Empty means policy available.
	Voters []kv.NodeID

	// Partitions is the number of partitions; tests use a smaller one. Default:
	// kv.Partitions.
	Partitions int
	// Table computes the ring. Default: NewRing.
	Table func([]RingMember) *Ring
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
	now            time.Duration
	bornAt         time.Duration // start of the process
	joiningSince   time.Duration // start of the search for other nodes
	joined         bool
	in             bool
	inSince        uint64 // state when it last came in
	leaving        bool
	stays          bool            // leaving ends once nothing is retired: see Stay
	state          uint64          // counts the changes of what it tells about itself
	told           [3]any          // what it told at the last count
	noOtherInSince time.Duration   // since then no other member is in
	rumourAt       time.Duration   // last rumour of an unmet process that counts: see Rumour
	stalls         stalls          // since the last pause
	standings      []wire.Standing // what it has heard of other members, as last told
	othersAt       uint64          // counts the changes of standings

	members map[kv.NodeID]*member
	gone    gone

	table   *Ring
	entered []kv.Process          // the ring's members, by name
	weights map[kv.Process]uint32 // of these
	grownAt time.Duration         // when a member last came into the ring

	// Partitions.
	parts  []partition
	claims []*claim
	// Earlier than these times a scan of all partitions finds nothing. Time
	// passes in many small steps, most of which concern no partition.
	claimAt   time.Duration // no claim is possible before
	retireAt  time.Duration // no retired ownership ends before; zero: none is retired
	ballotsAt uint64        // counts the changes of promised ballots
	promises  promises      // told last

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
	list      []wire.Promise
}

// New returns the machine of a node that has just started.
func New(cfg Config, now time.Duration) *Machine {
	cfg.Partitions = cmp.Or(cfg.Partitions, kv.Partitions)
	if cfg.Table == nil {
		cfg.Table = NewRing
	}
	m := &Machine{
		cfg: cfg, now: now, bornAt: now, lapseAt: never,
		members: map[kv.NodeID]*member{}, gone: gone{},
		parts: make([]partition, cfg.Partitions), stalls: stalls{bound: cfg.Bound, window: cfg.Detection},
	}
	m.table = cfg.Table(nil)
	m.startJoining()
	return m
}

// startJoining puts the node back to the state joining.
func (m *Machine) startJoining() {
	m.joiningSince, m.noOtherInSince = m.now, m.now
	m.joined, m.in = m.cfg.Bootstrap, false
}

// TakeActions returns the actions to carry out, in order, and forgets them.
func (m *Machine) TakeActions() []Action {
	out := m.out
	m.out = nil
	return out
}

func (m *Machine) do(a Action) { m.out = append(m.out, a) }

// Joined reports whether the node has joined: see the package comment on its states.
func (m *Machine) Joined() bool { return m.joined }

// In reports whether the node is in.
func (m *Machine) In() bool { return m.in }

// Leaving reports whether the node is leaving.
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

// Table returns the ring as this node sees it.
func (m *Machine) Table() *Ring { return m.table }

// Entered returns the processes of the ring's members, by name.
func (m *Machine) Entered() []kv.Process { return m.entered }

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

func (m *Machine) newSet() kv.PartitionSet { return kv.NewPartitionSet(m.cfg.Partitions) }
