package ownership

import (
	"container/heap"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

var (
	simTrace = flag.Bool("sim.trace", false, "print what happens")
	simRuns  = flag.Int("sim.runs", usualRuns(), "runs of the simulation, a kind of fault")
	simFirst = flag.Uint64("sim.first", 1, "first seed; zero draws one")
)

func usualRuns() int {
	if testenv.Long() {
		return 8
	}
	return 1 // random-ci runs more
}

// thorough reports whether rings are large and simulations run often, as in CI's random-ci.
func thorough() bool { return *simRuns >= 3 }

func firstSeed(t *testing.T) uint64 {
	first := *simFirst
	if first == 0 {
		first = rand.Uint64N(1 << 32)
	}
	t.Logf("first seed %d", first)
	return first
}

// The simulation: some nodes, a network that delays and loses, a gossip that finds
// dead nodes after a while, and faults. Time is a queue of events.

const (
	simBound      = time.Second
	simDetection  = 1500 * time.Millisecond
	simGossip     = 100 * time.Millisecond // between two rounds of gossip
	simMissing    = 1200 * time.Millisecond
	simPartitions = 16
)

type event struct {
	at  time.Duration
	seq int
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

type sim struct {
	t          *testing.T
	seed       uint64
	rnd        *rand.Rand
	now        time.Duration
	queue      events
	seq        int
	nodes      []*simNode
	loss       float64
	cut        map[[2]int]bool // one way
	split      bool            // the network is cut in two, again and again: no rule holds
	lostAt     time.Duration   // when two nodes were last without contact; see watch
	voters     []kv.NodeID     // policy consistent, with these; nil: available
	rivals     int             // so many first nodes, whose rings never agree
	slow       bool            // some messages take very long
	partitions int
	owners     [simPartitions]kv.Process // the last ones
	begun      int
	ended      int
	pauses     int
	forgotten  int  // members, by Forget
	counts     bool // count what is broken; do not fail
	broken     int
	clock      kv.Version
	plain      bool // clocks run alike, and each message takes 1 ms
	narrator   *narrator
	taken      func(by kv.NodeID, b Begun) // is told of each beginning
	state      func(n *simNode, in bool)   // and of each change of a node's In
	unpolled   [2]int                      // pair that cannot poll each other; equal: none
}

type simNode struct {
	s       *sim
	at      int
	node    kv.NodeID
	rate    int64 // of its clock: what it gains in 10,000
	id      kv.Process
	m       *Machine
	running bool
	stopped bool // paused
	slept   bool // it is, or was, paused, and nothing has looked since
	blocked bool // no node reaches its port for polls
	epoch   int
	last    time.Duration // when it was last seen to run
	rumours []rumour      // of each node, itself included
	pending []func()      // what came while it was paused
}

func (s *sim) after(d time.Duration, f func()) {
	s.seq++
	heap.Push(&s.queue, event{s.now + d, s.seq, f})
}

func newSim(t *testing.T, seed uint64, n int) *sim {
	s := &sim{t: t, seed: seed, rnd: rand.New(rand.NewPCG(seed, 7)), now: time.Hour, cut: map[[2]int]bool{}, partitions: simPartitions, clock: 1}
	if *simTrace {
		s.narrator = newNarrator(func(line string) { fmt.Printf("%10v %s\n", s.now-time.Hour, line) })
	}
	for i := range n {
		s.nodes = append(s.nodes, &simNode{s: s, at: i, node: kv.NodeID(rune('a' + i)), rate: s.rnd.Int64N(90) - 45, rumours: make([]rumour, n)})
	}
	return s
}

// now is the node's clock. The rates of two clocks differ by less than 1 %.
func (n *simNode) now() time.Duration {
	return n.s.now + (n.s.now-time.Hour)*time.Duration(n.rate)/10000
}

func (n *simNode) start(alone bool) {
	n.epoch++
	n.id = kv.Process{Node: n.node, Epoch: kv.Epoch(n.at*1000 + n.epoch)}
	n.running, n.stopped, n.slept, n.last, n.pending = true, false, false, n.now(), nil
	for i := range n.rumours {
		n.rumours[i] = rumour{at: n.s.now}
	}
	n.m = New(Config{
		Self: n.id, Weight: 1, Bound: simBound, Detection: simDetection, Bootstrap: alone, Partitions: n.s.partitions,
		Stamp: func() kv.Version { n.s.clock++; return n.s.clock },
		Rand:  rand.New(rand.NewPCG(n.s.seed, uint64(n.id.Epoch))),
		Table: n.table, Voters: n.s.voters,
	}, n.now())
	if n.s.rivals > 0 && n.at >= n.s.rivals {
		n.m.Leave(n.now()) // it votes, and owns nothing
	}
	n.s.narrator.fault(n, "starts")
	n.tick(n.epoch)
	n.gossip(n.epoch)
	n.poll(n.epoch)
}

// table is the ring; in a rival's ring the rival is alone.
func (n *simNode) table(list []RingMember) *Ring {
	if n.s.rivals > 0 {
		list = []RingMember{{Node: n.id.Node, Weight: 1}}
	}
	return smallTable(list)
}

// smallTable caches rings, so that the tests compute few.
func smallTable(list []RingMember) *Ring {
	key := fmt.Sprint(list)
	if t, ok := tables[key]; ok {
		return t
	}
	t := NewRing(list)
	tables[key] = t
	return t
}

var tables = map[string]*Ring{}

// run does something on a node if the node runs: now, or when its pause is over.
func (n *simNode) run(epoch int, f func()) {
	switch {
	case !n.running || n.epoch != epoch:
	case n.stopped:
		n.pending = append(n.pending, f)
	default:
		n.beat()
		f()
		n.carryOut()
	}
}

// beat looks for a stall before anything is done. There is none while the node runs:
// something looks all the time.
func (n *simNode) beat() {
	if stall := n.now() - n.last; n.slept && stall > simBound/StallAbove {
		if _, paused := n.m.Stall(n.now(), stall); paused {
			n.s.pauses++
		}
		n.carryOut()
	}
	n.slept, n.last = false, n.now()
}

func (n *simNode) tick(epoch int) {
	if n.running && n.epoch == epoch {
		n.run(epoch, func() { n.m.Tick(n.now()) })
		n.s.after(simBound/16, func() { n.tick(epoch) })
	}
}

// carryOut does what the machine wants done, and checks that no two nodes serve the
// same partition.
func (n *simNode) carryOut() {
	actions := n.m.TakeActions()
	n.s.narrator.actions(n, actions)
	for _, a := range actions {
		switch a := a.(type) {
		case Send:
			n.ask(a)
		case SendAuth:
			n.auth(a)
		case Begun:
			n.s.begun++
			n.s.begins(n, a)
			if n.s.taken != nil {
				n.s.taken(n.id.Node, a)
			}
		case Ended:
			n.s.ended++
		case StateChanged:
			if n.s.state != nil {
				n.s.state(n, a.In)
			}
		}
	}
	if !n.s.excused() {
		n.s.check()
	}
}

// excused says whether two nodes have lost contact lately, or may have.
func (s *sim) excused() bool { return s.split || s.lostAt > 0 && s.now-s.lostAt < healing }

// begins notes the owner, and checks that a new owner gets entries from the last
// owner only.
func (s *sim) begins(n *simNode, b Begun) {
	for p := range b.Partitions.All() {
		for from, set := range b.Releasers {
			if set.Has(p) && from != s.owners[p] && s.owners[p].Node != "" && !s.excused() {
				s.breaks("seed %d at %v: %s takes partition %d with what %s had, but %s owned it last", s.seed, s.now-time.Hour, n.id, p, from, s.owners[p])
			}
		}
		if s.owners[p] = n.id; s.excused() { // another may own it too
			s.owners[p] = kv.Process{}
		}
	}
}

// breaks reports what must not happen.
func (s *sim) breaks(format string, args ...any) {
	if s.broken++; !s.counts {
		s.t.Fatalf(format, args...)
	}
}

func (s *sim) check() {
	for p := range uint16(s.partitions) {
		server := ""
		for _, n := range s.nodes {
			if n.running && !n.slept && n.m.serves(p) && n.m.parts[p].until > n.now() {
				if server != "" {
					s.breaks("seed %d at %v: %s and %s both serve partition %d", s.seed, s.now-time.Hour, server, n.id, p)
				}
				server = n.id.String()
			}
		}
	}
}

// send delivers to a node, late or never; f is what is done there.
func (s *sim) send(from, to int, f func()) {
	if s.cut[[2]int{from, to}] || s.rnd.Float64() < s.loss {
		return
	}
	if s.plain {
		s.deliver(from, to, time.Millisecond, f)
		return
	}
	delay := time.Duration(s.rnd.Int64N(int64(5 * time.Millisecond)))
	if s.rnd.IntN(50) == 0 {
		delay += time.Duration(s.rnd.Int64N(int64(400 * time.Millisecond)))
	}
	if s.slow && s.rnd.IntN(20) == 0 {
		delay += time.Duration(s.rnd.Int64N(int64(5 * simBound / 2)))
	}
	s.deliver(from, to, delay, f)
}

func (s *sim) deliver(from, to int, delay time.Duration, f func()) {
	s.after(delay, func() {
		if !s.cut[[2]int{from, to}] {
			f()
		}
	})
}

// node returns the node at which a process was started.
func (s *sim) node(id kv.Process) *simNode { return s.nodes[id.Epoch/1000] }

// reaches says whether a node can poll another, as far as ports go.
func (n *simNode) reaches(to *simNode) bool {
	pair := [2]int{min(n.at, to.at), max(n.at, to.at)}
	return !to.blocked && (pair != n.s.unpolled || pair[0] == pair[1])
}

func (n *simNode) ask(a Send) {
	to, epoch := n.s.node(a.To), n.epoch
	if !n.reaches(to) {
		return
	}
	from := n.id
	n.s.send(n.at, to.at, func() {
		to.run(to.epoch, func() {
			if to.id != a.To {
				return
			}
			answer := to.m.Asked(to.now(), from, a.Acquire)
			to.carryOut() // endings first
			n.s.narrator.answer(to, from, a.Acquire, answer)
			id := to.id
			n.s.send(to.at, n.at, func() {
				n.run(epoch, func() { n.m.Answered(n.now(), id, answer) })
			})
		})
	})
}

func (n *simNode) auth(a SendAuth) {
	to, epoch, from := n.s.node(a.To), n.epoch, n.id
	if !n.reaches(to) {
		return
	}
	n.s.send(n.at, to.at, func() {
		to.run(to.epoch, func() {
			if to.id != a.To {
				return
			}
			id, sets := to.id, to.m.Authorize(to.now(), from, a.Auth)
			to.carryOut()
			n.s.narrator.acknowledged(to, from, a.Auth, sets)
			n.s.send(to.at, n.at, func() {
				n.run(epoch, func() { n.m.Authorized(n.now(), id, a.Round, sets) })
			})
		})
	})
}

func (n *simNode) poll(epoch int) {
	if !n.running || n.epoch != epoch {
		return
	}
	n.run(epoch, func() {
		for _, o := range n.m.others() {
			n.pollOne(o.id)
		}
	})
	n.s.after(simBound/4, func() { n.poll(epoch) })
}

func (n *simNode) pollOne(id kv.Process) {
	to, epoch, from, sent := n.s.node(id), n.epoch, n.id, n.now()
	info := n.m.PollFor(id)
	if !n.reaches(to) {
		return
	}
	n.s.send(n.at, to.at, func() {
		to.run(to.epoch, func() {
			to.m.PolledBy(to.now(), from, info)
			to.carryOut()
			answer, by := to.m.PollFor(from), to.id
			n.s.send(to.at, n.at, func() {
				n.run(epoch, func() {
					n.m.Polled(n.now(), by, sent, info.State, answer)
					n.m.Leased(n.now(), by, sent)
				})
			})
		})
	})
}

// rumour is what a node has heard of another, directly or through others.
type rumour struct {
	at     time.Duration
	id     kv.Process
	state  uint64
	in     bool
	weight uint32
}

// gossip spreads what the node has heard. As with SWIM's indirect probes, a node is
// missing only if no node that can be heard hears it.
func (n *simNode) gossip(epoch int) {
	if !n.running || n.epoch != epoch {
		return
	}
	n.run(epoch, func() {
		n.rumours[n.at] = rumour{n.s.now, n.id, n.m.State(), n.m.In(), n.m.Weight()}
		told := slices.Clone(n.rumours)
		for _, o := range n.s.nodes {
			if o == n {
				continue
			}
			n.s.send(n.at, o.at, func() { o.run(o.epoch, func() { o.hear(told) }) })
			if n.s.now-n.heardAt(o.node) >= simMissing {
				n.m.Missing(n.now(), o.node)
				if !n.s.plain && n.s.rnd.IntN(30) == 0 && n.m.Forget(n.now(), o.node, 0) {
					n.s.forgotten++
				}
			}
		}
	})
	n.s.after(simGossip, func() { n.gossip(epoch) })
}

// heardAt returns when the node last heard a process of some name.
func (n *simNode) heardAt(node kv.NodeID) (at time.Duration) {
	for _, o := range n.s.nodes {
		if o.node == node {
			at = max(at, n.rumours[o.at].at)
		}
	}
	return at
}

func (n *simNode) hear(told []rumour) {
	for i, r := range told {
		if i != n.at && r.at > n.rumours[i].at && r.id.Node != "" {
			n.rumours[i] = r
			n.m.Seen(n.now(), r.id, 0, r.weight, r.in) // a hint only, as in the driver
		}
	}
}

// serves says whether a node owns a partition and may answer for it.
func (m *Machine) serves(p uint16) bool { return m.parts[p].owned && m.parts[p].retired == 0 }

func (n *simNode) name() string { return processName(n.id) }

func (n *simNode) crash() {
	n.running = false
	n.s.narrator.fault(n, "crashes")
}

func (n *simNode) pause() {
	if !n.running || n.stopped {
		return
	}
	n.stopped, n.slept = true, true
	n.last = n.now() - n.s.upTo(simBound/LookEvery) // the last look
	n.s.narrator.fault(n, "pauses")
}

func (n *simNode) resume() {
	if !n.stopped {
		return
	}
	n.stopped = false
	n.s.narrator.fault(n, "resumes")
	n.run(n.epoch, func() {}) // a read comes at once
	pending := n.pending
	n.pending = nil
	for _, f := range pending {
		n.run(n.epoch, f)
	}
}

func (s *sim) until(end time.Duration) {
	for len(s.queue) > 0 && s.queue[0].at <= end {
		e := heap.Pop(&s.queue).(event)
		s.now = e.at
		e.do()
	}
	s.now = end
}

// settled says whether all nodes are in and each partition is served by one node.
func (s *sim) settled() error {
	for p := range uint16(s.partitions) {
		n := 0
		for _, node := range s.nodes {
			if !node.running {
				continue
			}
			if node.m.serves(p) {
				n++
			}
			if !node.m.In() {
				return fmt.Errorf("%s is not in (joined %v)", node.id, node.m.Joined())
			}
		}
		if n != 1 {
			return fmt.Errorf("partition %d is served by %d nodes", p, n)
		}
	}
	return nil
}

// fault is a kind of run.
type fault struct {
	name string
	do   func(s *sim)
}

var faults = []fault{
	{"none", func(*sim) {}},
	{"loss", func(s *sim) { s.loss = 0.3 }},
	{"crash and restart", func(s *sim) {
		for range 4 {
			n := s.nodes[s.rnd.IntN(len(s.nodes))]
			s.after(s.upTo(20*time.Second), func() {
				if n.running {
					n.crash()
					s.after(s.upTo(4*time.Second), func() { n.start(false) })
				}
			})
		}
	}},
	{"restart at once", func(s *sim) {
		for range 6 {
			n := s.nodes[s.rnd.IntN(len(s.nodes))]
			s.after(s.upTo(20*time.Second), func() {
				if n.running {
					n.crash()
					s.after(s.upTo(300*time.Millisecond), func() { n.start(false) })
				}
			})
		}
	}},
	{"pauses", func(s *sim) {
		for range 6 {
			n := s.nodes[s.rnd.IntN(len(s.nodes))]
			s.after(s.upTo(20*time.Second), func() {
				n.pause()
				s.after(s.upTo(5*time.Second), n.resume)
			})
		}
	}},
	{"all paused at once", func(s *sim) {
		s.after(s.upTo(10*time.Second), func() {
			for _, n := range s.nodes {
				n.pause()
				s.after(2*time.Second+s.upTo(3*time.Second), n.resume)
			}
		})
	}},
	{"stutter", stutters},
	{"stops in turn", turns},
	{"one link", func(s *sim) {
		a, b := s.rnd.IntN(len(s.nodes)), s.rnd.IntN(len(s.nodes))
		both := s.rnd.IntN(2) == 0
		s.after(s.upTo(5*time.Second), func() {
			s.cut[[2]int{a, b}], s.cut[[2]int{b, a}] = true, both
			s.after(s.upTo(15*time.Second), func() { clear(s.cut) })
		})
	}},
	{"leave and stay", func(s *sim) {
		n := s.nodes[s.rnd.IntN(len(s.nodes))]
		for range 3 {
			at := s.upTo(15 * time.Second)
			s.after(at, func() { n.run(n.epoch, func() { n.m.Leave(n.now()) }) })
			s.after(at+s.upTo(simBound), func() { n.run(n.epoch, func() { n.m.Stay(n.now()) }) })
		}
		s.after(16*time.Second, func() { n.run(n.epoch, func() { n.m.Stay(n.now()) }) })
	}},
	{"leave", func(s *sim) {
		n := s.nodes[s.rnd.IntN(len(s.nodes))]
		s.after(s.upTo(10*time.Second), func() { n.run(n.epoch, func() { n.m.Leave(n.now()) }) })
		s.after(16*time.Second, func() {
			if n.running && n.m.Unended() > 0 && len(s.nodes) > 1 {
				s.t.Errorf("seed %d: %s leaves, and still owns something after 6 s", s.seed, n.id)
			}
			n.crash()
			for _, o := range s.nodes {
				o.run(o.epoch, func() { o.m.Left(o.now(), n.id) })
			}
			s.after(s.upTo(time.Second), func() { n.start(false) })
		})
	}},
}

// splits cut the network in two for longer than it takes to find the dead, one way or
// both, again and again.
func splits(s *sim) {
	s.split = s.voters == nil // the one excepted case
	s.slow = true
	for at := time.Duration(0); at < 15*time.Second; at += s.upTo(8 * time.Second) {
		side := s.rnd.IntN(1 << len(s.nodes))
		both := s.rnd.IntN(3) > 0
		s.after(at, func() {
			clear(s.cut)
			for i := range s.nodes {
				for j := range s.nodes {
					if side>>i&1 == 0 && side>>j&1 == 1 {
						s.cut[[2]int{i, j}], s.cut[[2]int{j, i}] = true, both
					}
				}
			}
		})
	}
	s.after(20*time.Second, func() { clear(s.cut); s.slow = false })
}

// links cuts some links, one way or both, for some time.
func links(s *sim) {
	for range 6 {
		a, b := s.rnd.IntN(len(s.nodes)), s.rnd.IntN(len(s.nodes))
		both := s.rnd.IntN(2) == 0
		at := s.upTo(15 * time.Second)
		s.after(at, func() { s.cut[[2]int{a, b}], s.cut[[2]int{b, a}] = true, both })
		s.after(at+s.upTo(5*time.Second), func() { delete(s.cut, [2]int{a, b}); delete(s.cut, [2]int{b, a}) })
	}
}

// all is everything, and either splits or links.
func all(s *sim) {
	everything(s)
	if s.rnd.IntN(2) == 0 {
		splits(s)
	} else {
		links(s)
	}
}

// everything is several of the faults above in one run.
func everything(s *sim) {
	s.loss = s.rnd.Float64() * 0.2
	for range 3 + s.rnd.IntN(6) {
		faults[2+s.rnd.IntN(7)].do(s)
	}
}

// vote makes three or five of the nodes voters; they need not be the first ones.
func (s *sim) vote() {
	for _, i := range s.rnd.Perm(len(s.nodes))[:3+len(s.nodes)/5*2*s.rnd.IntN(2)] {
		s.voters = append(s.voters, kv.NodeID(rune('a'+i)))
	}
}

func (s *sim) upTo(d time.Duration) time.Duration { return time.Duration(s.rnd.Int64N(int64(d))) }

// TestOneOwner runs clusters of 3 to 5 nodes under faults. No two nodes ever serve
// one partition, and when the faults are over every partition is served again.
func TestOneOwner(t *testing.T) {
	testenv.Takes(t, 10*time.Second)
	first := firstSeed(t)
	kinds := slices.Concat(faults, []fault{{"everything", everything}, {"splits", splits}, {"links", links}, {"all", all}})
	for _, policy := range []string{"available", "consistent"} {
		for _, f := range kinds {
			t.Run(policy+"/"+f.name, func(t *testing.T) { oneOwner(t, f, first, policy == "consistent") })
		}
	}
}

func oneOwner(t *testing.T, f fault, first uint64, consistent bool) {
	begun, ended, forgotten, split := 0, 0, 0, 0
	for i := range *simRuns {
		seed := first + uint64(i)
		s := newSim(t, seed, 3+int(seed%3))
		if consistent {
			s.vote()
		} else {
			s.watch()
		}
		together := s.rnd.IntN(2) == 0
		for j, n := range s.nodes {
			delay := time.Duration(0)
			if !together {
				delay = time.Duration(j) * s.upTo(2*time.Second)
			}
			s.after(delay, func() { n.start(false) })
		}
		s.until(time.Hour + 15*time.Second)
		if f.name != "loss" {
			if err := s.settled(); err != nil {
				t.Fatalf("seed %d: 15 s after the start: %v", seed, err)
			}
		}
		f.do(s)
		s.until(time.Hour + 45*time.Second)
		s.loss = 0
		s.until(time.Hour + 70*time.Second)
		if err := s.settled(); err != nil {
			t.Fatalf("seed %d: 25 s after the faults: %v", seed, err)
		}
		begun += s.begun
		ended += s.ended
		forgotten += s.forgotten
		if s.split || s.lostAt > 0 {
			split++
		}
	}
	t.Logf("%d beginnings, %d endings, %d forgotten, %d of %d runs with a split", begun, ended, forgotten, split, *simRuns)
	if begun < *simRuns {
		t.Errorf("%d beginnings are too few to prove anything", begun)
	}
}
