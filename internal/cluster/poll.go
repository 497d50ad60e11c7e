package cluster

import (
	"context"
	"math"
	"time"

	"github.com/cachesidecar/cachesidecar/gossip"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// member is what this node knows of another node, from gossip and polls, and its
// poller.
type member struct {
	id      kv.Process
	address string
	// state counts the changes of weight and in, as the process itself has told; zero:
	// it has told nothing yet.
	state   uint64
	weight  uint32
	in      bool
	hint    uint64        // the same count, as gossip has told
	hintOut bool          // gossip says that the process is out
	toldAt  time.Duration // boot clock when the process itself last told
	wasIn   bool          // the process has been in, by gossip or polls
	reached bool          // it has answered a greeting at its address
	alive   bool
	goneAt  time.Duration // since when it is not alive, on the boot clock
	left    kv.Process    // the last process that has said goodbye
	trouble string        // why it is not talked to
	skewed  bool          // its clock was too far off at the last check
	stop    func()        // ends its poller; nil if there is none
	kick    chan struct{} // has an element if the next poll must not wait
	acquire chan struct{} // has an element for each ACQUIRE in flight
	auth    chan struct{} // has an element for each AUTH in flight
}

// maxAcquires limits the ACQUIREs to one member that are in flight. A further one is
// dropped, because the machine asks again.
const maxAcquires = 4

// maxAuths is the same for AUTHs. One is sent every B/4 and waits for B/2.
const maxAuths = 8

// watch feeds gossip's members to the machine, until ctx ends.
func (n *Node) watch(ctx context.Context) {
	for {
		n.step(func(m *ownership.Machine, now time.Duration) {
			for _, g := range n.gossip.Members() {
				n.heard(m, now, g)
			}
		})
		select {
		case <-ctx.Done():
			return
		case <-n.gossip.Changed():
		}
	}
}

// heard tells the machine what is new in gossip's word of a member. Old information is
// no sign of life. n.mu is held.
func (n *Node) heard(machine *ownership.Machine, now time.Duration, g gossip.Member) {
	id := kv.Process{Node: kv.NodeID(g.Node), Epoch: kv.Epoch(g.Meta.Epoch)}
	m := n.members[id.Node]
	if m == nil {
		m = &member{acquire: make(chan struct{}, maxAcquires), auth: make(chan struct{}, maxAuths), kick: make(chan struct{}, 1)}
		n.members[id.Node] = m
	}
	next := m.next(id, &g)
	if next.id != m.id {
		next.toldAt = now
	}
	if !next.alive && (m.alive || m.id != next.id) {
		next.goneAt = now
	}
	if next.id == m.id && next.address == m.address && next.hint == m.hint && next.alive == m.alive {
		return
	}
	moved := next.id != m.id || next.address != m.address
	if next.hint != m.hint {
		select {
		case m.kick <- struct{}{}:
		default:
		}
	}
	old := m.id
	*m = next
	if moved {
		if old != id {
			n.known.drop(old)
		}
		m.trouble = ""
		n.pool.Set(id, m.address)
		if m.stop != nil {
			m.stop()
		}
		ctx, cancel := context.WithCancel(n.running)
		m.stop = cancel
		// Both end with Run, or when the process is replaced.
		n.tasks.Go(func() { n.poll(ctx, id, m.kick) })
		n.tasks.Go(func() { n.follow(ctx, id) })
	}
	if m.alive {
		machine.Seen(now, id, m.count(), m.weight, m.in)
	} else {
		machine.Missing(now, id.Node)
	}
}

// next returns the member after gossip's word of it. Gossip's weight and in count until
// the process itself has told them; then they are only a hint to poll it. Gossip's
// address counts until the process has answered there; then it is final for that
// process.
func (m *member) next(id kv.Process, g *gossip.Member) member {
	next := *m
	if m.id != id {
		next.state, next.wasIn, next.reached, next.skewed = 0, false, false, false
	}
	next.id, next.alive, next.hint, next.hintOut = id, g.State == gossip.Alive, g.Meta.State, !g.Meta.In
	if !next.reached {
		next.address = g.Meta.Address
	}
	if next.state == 0 || failpoint.Out(failpoint.Hint) {
		next.weight, next.in = g.Meta.Weight, g.Meta.In
	}
	next.wasIn = next.wasIn || next.in
	return next
}

// count returns the state count for gossip's weight and in. It is zero, so that these
// count only until the process itself has told them.
func (m *member) count() uint64 {
	if failpoint.Out(failpoint.Hint) {
		return m.hint
	}
	return 0
}

// goneOut takes gossip's word that a process is out, after the process itself has told
// nothing for the detection time: this node cannot hear it, or does not listen. The
// word may come from a stranger. It therefore ends as soon as the process tells
// something, and is not passed on. n.mu is held.
func (n *Node) goneOut(machine *ownership.Machine, now time.Duration) {
	for _, m := range n.members {
		if m.hintOut && m.hint > m.state && now-m.toldAt >= n.cfg.Detection {
			machine.GoneOut(now, m.id, m.hint)
			m.in = false
		}
	}
}

// tells records what a process tells about itself. n.mu is held.
func (n *Node) tells(id kv.Process, state uint64, weight uint32, in bool) {
	if m := n.members[id.Node]; m != nil && m.id == id && state >= m.state {
		m.state, m.weight, m.in = state, weight, in
		m.wasIn = m.wasIn || in
	}
}

// poll asks a process every B/4 for what leases and ownership depend on. It continues
// while gossip misses the process: a path that still works counts.
func (n *Node) poll(ctx context.Context, id kv.Process, kick <-chan struct{}) {
	t := time.NewTicker(n.cfg.PollEvery)
	defer t.Stop()
	for {
		n.pollOnce(ctx, id)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-kick:
			kv.Sleep(ctx, n.cfg.PollEvery/16) // gossip may say it often
		}
	}
}

func (n *Node) pollOnce(ctx context.Context, id kv.Process) {
	sent := n.cfg.Clock.Read()
	n.CheckPause(sent.Boot)
	n.mu.Lock()
	body, err := n.pollBody(id, sent)
	n.mu.Unlock()
	if err != nil {
		n.cfg.Log.Error("poll", "error", err)
		return
	}
	var a peer.Answer
	defer a.Release()
	n.counts.polls.Add(1)
	err = n.pool.Do(ctx, id, peer.Poll, n.cfg.Bound/2, &wire.Request{Op: wire.OpPoll, Body: body}, &a)
	var w wire.Poll
	if err == nil && a.Status == wire.OK {
		err = wire.UnmarshalBody(a.Body, &w)
	}
	if err != nil || a.Status != wire.OK {
		n.counts.pollFailures.Add(1)
		n.cfg.Log.Debug("a poll was not answered", "node", id.Node, "error", err, "status", a.Status, "message", string(a.Message))
		return
	}
	now := n.cfg.Clock.Read().Boot
	if n.skewed(id, w.WallMS, sent.Wall) || n.ahead(id, w.Newest()) {
		return
	}
	n.trouble(id.Node, "") // the trouble is over, whatever it was
	n.cfg.Versions.Observe(kv.Version(w.Clock))
	var o *Owner
	n.about(id, func(m *ownership.Machine, now time.Duration) {
		m.Polled(now, id, sent.Boot, fromPoll(&w))
		m.Cannot(now, id.Node, nodes(w.Cannot))
		n.tells(id, w.State, w.Weight, w.In)
		n.members[id.Node].toldAt = now
		o = n.owner(id)
	})
	if o == nil {
		return
	}
	n.vouched(w.Others)
	later(&o.polledAt, sent.Boot)
	o.answered(time.Duration(min(w.BootNS, math.MaxInt64/2)), now)
	n.leased(o, o.log.Polled(sent.Boot, w.Head))
}

// pollBody returns what this node tells about itself. n.mu is held.
func (n *Node) pollBody(to kv.Process, now kv.Moment) ([]byte, error) {
	info := n.machine.InfoFor(to)
	w := wire.Poll{
		State: info.State, Joined: info.Joined, In: info.In, Weight: info.Weight, Leased: info.Leased,
		Ballots: n.promises(info.Ballots), Next: info.Next, Have: info.Have,
		WallMS: now.Wall, Clock: uint64(n.cfg.Versions.Next(now.Wall)), Head: n.cfg.Events.Head(),
		BootNS: uint64(now.Boot), Others: toStandings(info.Others), OthersAt: info.OthersAt, OthersHave: info.OthersHave,
	}
	for _, name := range n.machine.Unpolled() {
		w.Cannot = append(w.Cannot, string(name))
	}
	return wire.MarshalBody(&w)
}

// promises is toPromises. It keeps the result for the next member, to which the machine
// tells the same. n.mu is held.
func (n *Node) promises(list []ownership.Promise) []wire.Promise {
	if len(list) == 0 {
		return nil
	}
	if len(n.told) == 0 || &n.told[0] != &list[0] {
		n.told, n.toldWire = list, toPromises(list)
	}
	return n.toldWire
}

func nodes(names []string) []kv.NodeID {
	out := make([]kv.NodeID, len(names))
	for i, s := range names {
		out[i] = kv.NodeID(s)
	}
	return out
}

// skewed reports whether a process's wall clock, read after since, is too far off. Then
// nothing in its message counts.
func (n *Node) skewed(id kv.Process, wall, since int64) bool {
	err := n.id.Skew(string(id.Node), wall, since, n.cfg.Clock.Read().Wall)
	if err != nil {
		n.refused(id.Node, err)
	}
	n.mu.Lock()
	if m := n.members[id.Node]; m != nil && m.id == id {
		m.skewed = err != nil
	}
	n.mu.Unlock()
	return err != nil
}

// ahead reports whether a version in a process's message is too far ahead. Then nothing
// in the message counts, and the process's clock counts as off until its next poll is
// checked.
func (n *Node) ahead(id kv.Process, newest uint64) bool {
	err := n.id.Ahead(id.Node, newest)
	if err == nil {
		return false
	}
	n.refused(id.Node, err)
	n.mu.Lock()
	if m := n.members[id.Node]; m != nil && m.id == id {
		m.skewed = true
	}
	n.mu.Unlock()
	return true
}

// send asks a process for partitions. n.mu is held.
func (n *Node) send(s ownership.Send) {
	m := n.members[s.To.Node]
	if n.running == nil || m == nil || m.id != s.To {
		return
	}
	slots := m.acquire
	select {
	case slots <- struct{}{}:
	default:
		return
	}
	body, err := wire.MarshalBody(&wire.Acquire{
		Ballot: ToBallot(s.Acquire.Ballot), State: s.Acquire.State, Partitions: toSet(s.Acquire.Partitions),
		Ring: toProcesses(s.Acquire.Ring), Clock: uint64(s.Acquire.Ballot.Clock),
	})
	if err != nil {
		n.cfg.Log.Error("acquire", "error", err)
		<-slots
		return
	}
	ctx, ballot := n.running, s.Acquire.Ballot
	n.tasks.Go(func() { // ends with its call
		defer func() { <-slots }()
		n.ask(ctx, s.To, ballot, body)
	})
}

func (n *Node) ask(ctx context.Context, to kv.Process, ballot *ownership.Ballot, body []byte) {
	n.CheckPause(n.cfg.Clock.Read().Boot)
	var a peer.Answer
	defer a.Release()
	err := n.pool.Do(ctx, to, peer.Poll, n.cfg.Bound/2, &wire.Request{Op: wire.OpAcquire, Body: body}, &a)
	var w wire.Acquired
	if err == nil && a.Status == wire.OK {
		err = wire.UnmarshalBody(a.Body, &w)
	}
	if err != nil || a.Status != wire.OK {
		n.cfg.Log.Debug("an ACQUIRE was not answered", "node", to.Node, "error", err, "message", string(a.Message))
		return
	}
	if n.ahead(to, w.Newest()) {
		return
	}
	n.cfg.Versions.Observe(kv.Version(w.Clock))
	n.learn(w.Floors)
	n.about(to, func(m *ownership.Machine, now time.Duration) {
		m.Answered(now, to, ownership.Answer{
			Ballot: ballot, Granted: fromSet(w.Granted), Released: fromSet(w.Released), In: fromProcesses(w.In), Head: w.Head,
			Voter: w.Voter, Authorities: fromOwnerships(w.Authorities),
		})
	})
}
