package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar/gossip"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// membership keeps the roster: it takes what gossip says about members, starts and ends
// what this node does for each, and forgets members that are gone; see forget.go. The
// roster, named, sweepAt and isolation are guarded by the driver's lock. A method that has the
// machine as a parameter is called under that lock.
type membership struct {
	cfg           *Config
	driver        *driver
	pool          *peer.Pool
	acquaintances *acquaintances
	report        *reporter
	counts        *counts
	// poll and follow run for each process, until ctx ends.
	poll   func(ctx context.Context, id kv.Process, kick <-chan struct{})
	follow func(ctx context.Context, id kv.Process)

	named     map[kv.NodeID]namesake
	sweepAt   time.Duration // when to look for members to forget again
	isolation isolation
}

// watch feeds gossip's members to the machine, until ctx ends.
func (ms *membership) watch(ctx context.Context, g *gossip.Gossip) {
	for {
		ms.driver.step(func(m *ownership.Machine, now time.Duration) {
			for _, word := range g.Members() {
				ms.takeGossip(m, now, word)
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
func (ms *membership) takeGossip(machine *ownership.Machine, now time.Duration, g gossip.Member) {
	id := kv.Process{Node: kv.NodeID(g.Node), Epoch: kv.Epoch(g.Meta.Epoch)}
	m := ms.driver.members[id.Node]
	if m == nil {
		m = newMember()
		ms.driver.members[id.Node] = m
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
		m.poll()
	}
	old := m.id
	*m = next
	if moved {
		if old != id {
			ms.acquaintances.forget(old)
		}
		ms.connect(m)
	}
	if m.alive {
		state := uint64(0) // gossip's word counts until the process itself has told
		if failpoint.Out(failpoint.Hint) {
			state = g.Meta.State
		}
		machine.Seen(now, id, state, g.Meta.Weight, g.Meta.In)
	} else {
		machine.Missing(now, id.Node)
	}
}

// connect begins to poll and to follow a member that is new, or has moved. The driver's
// lock is held.
func (ms *membership) connect(m *member) {
	m.trouble = ""
	ms.pool.Set(m.id, m.address)
	if m.stop != nil {
		m.stop()
	}
	ctx, cancel := context.WithCancel(ms.driver.running.ctx)
	m.stop = cancel
	id, kick := m.id, m.kick
	// Both end with Run, or when the process is replaced.
	ms.driver.running.tasks.Go(func() { ms.poll(ctx, id, kick) })
	ms.driver.running.tasks.Go(func() { ms.follow(ctx, id) })
}

// goodbye takes a process's message that it leaves.
func (ms *membership) goodbye(id kv.Process) {
	defer ms.pool.Leave(id) // once the view names other owners
	ms.driver.step(func(m *ownership.Machine, now time.Duration) {
		m.Left(now, id)
		if o := ms.driver.members.process(id); o != nil {
			if o.left != id {
				ms.cfg.Log.Info("a host has left: it has handed over what it owned", "node", id.Node)
			}
			o.alive, o.left, o.goneAt = false, id, now
			if o.stop != nil {
				o.stop()
			}
		}
	})
}

// tick does what time brings about. The driver's lock is held.
func (ms *membership) tick(m *ownership.Machine, now time.Duration) {
	if !m.In() && ms.acquaintances.rumour() {
		m.Rumour(now)
	}
	ms.takeOut(m, now)
	for _, o := range ms.driver.members {
		m.Refused(o.id, o.trouble != "")
	}
	m.Tick(now)
	ms.judgeIsolation(m, now)
	ms.sweep(m, now)
}

// takeOut takes gossip's report that a process is out, after the process itself has told
// nothing for the detection time: this node cannot hear it, or does not listen. The
// report may come from a stranger. It therefore ends as soon as the process tells
// something, and is not passed on.
func (ms *membership) takeOut(machine *ownership.Machine, now time.Duration) {
	for name, m := range ms.driver.members {
		s, _ := machine.Standing(name)
		if m.hintOut && m.hint > s.State && now-m.toldAt >= ms.cfg.detection() {
			machine.GoneOut(now, m.id, m.hint)
		}
	}
}

// namesake is gossip's last report about a name. Gossip repeats the report for as long
// as the conflict lasts.
type namesake struct {
	at  time.Duration // on the boot clock
	why string
}

// namesakeFor is how long such a report counts.
const namesakeFor = time.Minute

// conflict takes gossip's report of two processes with one name.
func (ms *membership) conflict(node, known, other string) {
	ms.counts.conflicts.Add(1)
	ms.driver.mu.Lock()
	ms.named[kv.NodeID(node)] = namesake{at: ms.cfg.Clock.Read().Boot, why: fmt.Sprintf(
		"two processes call themselves %s, at %s and %s: names must be unique, set node", node, known, other)}
	ms.driver.mu.Unlock()
	if ms.report.due("name", kv.NodeID(node)) {
		ms.cfg.Log.Warn("two processes call themselves by one name: names must be unique, set node",
			"node", node, "known", known, "other", other)
	}
}

// namesake returns the report that a name belongs to two processes, or "". The driver's
// lock is held.
func (ms *membership) namesake(name kv.NodeID) string {
	s, ok := ms.named[name]
	if ok && ms.cfg.Clock.Read().Boot-s.at >= namesakeFor {
		delete(ms.named, name)
		return ""
	}
	return s.why
}
