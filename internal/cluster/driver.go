package cluster

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/gossip"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// driver drives the state machine of ownership by requests, answers and time. It has
// the answer to "which process owns this partition now".
//
// Locking. mu guards the state, and only this file names it. Every decision about
// ownership happens under mu, and its effects are carried out before mu is released, so
// no reader sees an ownership that has ended. mu is not held during a call to another
// process. Methods of gossip and of the pool may be called under mu. Both have locks of
// their own, and functions that they call under those locks must not take mu. No other
// lock of this package is held when mu is taken; those of acquaintances, Agreement and
// reporter may be taken under it.
type driver struct {
	cfg *Config
	published

	// Read and changed without the lock; a stall that counts moves lastSeen under it.
	lastSeen atomic.Int64 // boot clock at its last reading
	lastStop atomic.Pointer[standstill]

	mu    sync.Mutex
	state state
}

// newDriver returns a driver without members.
func newDriver(cfg *Config, counts *counts, report *reporter) *driver {
	now := cfg.Clock.Read().Boot
	machine := ownership.New(ownership.Config{
		Self: cfg.Self, Weight: cfg.Weight, Bound: cfg.Bound, Detection: cfg.detection(),
		Bootstrap: len(cfg.Join) == 0, Table: cfg.Network.Table,
		Voters: nodes(cfg.Voters),
		Stamp:  func() kv.Version { return cfg.Versions.Next(cfg.Clock.Read().Wall) },
		Rand:   rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
	}, now)
	d := &driver{cfg: cfg, state: state{
		cfg: cfg, counts: counts, report: report, machine: machine,
		members: members{}, hosts: map[kv.Process]*Host{}, changed: make(chan struct{}),
		feeds: newCertificates(cfg.Feeds), namesakes: namesakes{},
	}}
	s := &d.state
	s.out = &d.published
	d.lastSeen.Store(int64(now))
	s.publish()
	d.view.Store(s.newView())
	cfg.Mirror.Viewed(d.view.Load())
	return d
}

// withState calls f with the state, under the lock. If f has the machine decide, f carries that out.
func (d *driver) withState(f func(s *state)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(&d.state)
}

// withMember calls f with the member whose present process is id, under the lock, if there is one.
func (d *driver) withMember(id kv.Process, f func(m *member)) {
	d.withState(func(s *state) {
		if m := s.members.process(id); m != nil {
			f(m)
		}
	})
}

// step calls f with the state under the lock, and carries out the resulting actions.
func (d *driver) step(f func(s *state, now time.Duration)) {
	now := d.cfg.Clock.Read().Boot
	d.checkPause(now)
	d.withState(func(s *state) {
		f(s, now)
		s.carryOut()
	})
}

// stepAbout is step for information about a process. It does nothing if the process is
// not known any more: late information must not bring back a forgotten member.
func (d *driver) stepAbout(id kv.Process, f func(s *state, now time.Duration)) {
	d.step(func(s *state, now time.Duration) {
		if s.members.process(id) != nil {
			f(s, now)
		}
	})
}

// stepFor is step for a request of a process. If gossip does not know the process, its
// silence counts like that of a member that gossip has lost.
func (d *driver) stepFor(id kv.Process, f func(s *state, now time.Duration)) {
	d.step(func(s *state, now time.Duration) {
		f(s, now)
		if s.members[id.Node] == nil {
			s.machine.Missing(now, id.Node)
		}
	})
}

// tick advances the machine's time.
func (d *driver) tick(now time.Duration) {
	d.withState(func(s *state) {
		s.machine.Tick(now)
		s.carryOut()
		s.judgeFeeds(now)
	})
}

// heardOf takes what the answer to a poll says of feeds, which was sent at a moment.
func (d *driver) heardOf(list []wire.Certified, sent time.Duration) {
	if len(list) == 0 || len(d.cfg.Feeds) == 0 {
		return
	}
	d.step(func(s *state, now time.Duration) {
		s.feeds.takeAges(list, sent)
		s.judgeFeeds(now)
	})
}

// hostOf returns the Host of a process.
func (d *driver) hostOf(id kv.Process) (o *Host) {
	d.withState(func(s *state) { o = s.host(id) })
	return o
}

// gossip returns gossip; nil before Run.
func (d *driver) gossip() (g *gossip.Gossip) {
	d.withState(func(s *state) { g = s.running.gossip })
	return g
}

// live lists the processes of the members that gossip hears.
func (d *driver) live() (list []kv.Process) {
	d.withState(func(s *state) { list = s.members.alive() })
	return list
}

// hasLeft reports whether a process has said goodbye. Such a process owns nothing.
func (d *driver) hasLeft(id kv.Process) (left bool) {
	d.withState(func(s *state) {
		m := s.members[id.Node]
		left = m != nil && m.left == id
	})
	return left
}
