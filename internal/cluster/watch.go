package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar/gossip"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
)

// watcher watches gossip: it takes what gossip says about members, starts and ends
// what this node does for each, and forgets members that are gone; see forget.go.
type watcher struct {
	cfg           *Config
	driver        *driver
	pool          *peer.Pool
	acquaintances *acquaintances
	report        *reporter
	counts        *counts
	// poll and follow run for each process, until ctx ends.
	poll   func(ctx context.Context, id kv.Process, kick <-chan struct{})
	follow func(ctx context.Context, id kv.Process)
}

// watch feeds gossip's members to the machine, until ctx ends.
func (w *watcher) watch(ctx context.Context, g *gossip.Gossip) {
	for {
		w.driver.step(func(s *state, now time.Duration) {
			for _, report := range g.Members() {
				w.takeGossip(s, now, report)
			}
		})
		select {
		case <-ctx.Done():
			return
		case <-g.Changed():
		}
	}
}

// takeGossip tells the machine what is new in gossip's report of a member. Old information
// is no sign of life.
func (w *watcher) takeGossip(s *state, now time.Duration, g gossip.Member) {
	id := kv.Process{Node: kv.NodeID(g.Node), Epoch: kv.Epoch(g.Meta.Epoch)}
	m := s.members[id.Node]
	if m == nil {
		m = newMember()
		s.members[id.Node] = m
	}
	next := m.after(id, &g)
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
		wake(m.kick)
	}
	old := m.id
	*m = next
	if moved {
		if old != id {
			w.acquaintances.forget(old)
		}
		w.connect(s, m)
	}
	if m.alive {
		changes := uint64(0) // gossip's word counts until the process itself has told
		if failpoint.Out(failpoint.Hint) {
			changes = g.Meta.State
		}
		s.machine.Seen(now, id, changes, g.Meta.Weight, g.Meta.In)
	} else {
		s.machine.Missing(now, id.Node)
	}
}

// connect begins to poll and to follow a member that is new, or has moved.
func (w *watcher) connect(s *state, m *member) {
	m.trouble = ""
	w.pool.Set(m.id, m.address)
	if m.stop != nil {
		m.stop()
	}
	ctx, cancel := context.WithCancel(s.running.ctx)
	m.stop = cancel
	id, kick := m.id, m.kick
	// Both end with Run, or when the process is replaced.
	s.running.tasks.Go(func() { w.poll(ctx, id, kick) })
	s.running.tasks.Go(func() { w.follow(ctx, id) })
}

// goodbye takes a process's message that it leaves.
func (w *watcher) goodbye(id kv.Process) {
	defer w.pool.Leave(id) // once the view names other owners
	w.driver.step(func(s *state, now time.Duration) {
		s.machine.Left(now, id)
		if m := s.members.process(id); m != nil {
			if m.left != id {
				w.cfg.Log.Info("a host has left: it has handed over what it owned", "node", id.Node)
			}
			m.alive, m.left, m.goneAt = false, id, now
			if m.stop != nil {
				m.stop()
			}
		}
	})
}

// tick does what time brings about.
func (w *watcher) tick(s *state, now time.Duration) {
	if !s.machine.In() && w.acquaintances.rumour() {
		s.machine.Rumour(now)
	}
	w.takeOut(s, now)
	for _, m := range s.members {
		s.machine.Refused(m.id, m.trouble != "")
	}
	s.machine.Tick(now)
	w.judgeIsolation(s, now)
}

// judgeIsolation looks whether this node is isolated.
func (w *watcher) judgeIsolation(s *state, now time.Duration) {
	if !s.machine.Joined() {
		return // it still looks for others, also after a pause
	}
	var silent []string
	answers := false
	for name, m := range s.members {
		silence, dead := s.machine.Silence(now, name)
		switch {
		case m.left == m.id:
		case !dead && silence < w.cfg.detection():
			told, _ := s.machine.Standing(name)
			answers = answers || told.State != 0 // else it has told nothing yet
		case !s.stranger(m):
			silent = append(silent, string(name))
		}
	}
	was := s.isolation.why
	s.isolation.judge(silent, answers, s.running.gossip.Others(), now, w.cfg.detection())
	w.report.isolated(was, s.isolation.why, answers)
}

// takeOut takes gossip's report that a process is out, after the process itself has told
// nothing for the detection time: this node cannot hear it, or does not listen. The
// report may come from a stranger. It therefore ends as soon as the process tells
// something, and is not passed on.
func (w *watcher) takeOut(s *state, now time.Duration) {
	for name, m := range s.members {
		told, _ := s.machine.Standing(name)
		if m.hintOut && m.hint > told.State && now-m.toldAt >= w.cfg.detection() {
			s.machine.GoneOut(now, m.id, m.hint)
		}
	}
}

// conflict takes gossip's report of two processes with one name.
func (w *watcher) conflict(node, known, other string) {
	w.counts.conflicts.Add(1)
	report := namesake{at: w.cfg.Clock.Read().Boot, why: fmt.Sprintf(
		"two processes call themselves %s, at %s and %s: names must be unique, set node", node, known, other)}
	w.driver.withState(func(s *state) { s.namesakes[kv.NodeID(node)] = report })
	if w.report.due("name", kv.NodeID(node)) {
		w.cfg.Log.Warn("two processes call themselves by one name: names must be unique, set node",
			"node", node, "known", known, "other", other)
	}
}
