package cluster

import (
	"context"
	"math"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// poller polls the other nodes, and makes what this node tells about itself in polls and
// in its answers to them. It has no state of its own.
type poller struct {
	cfg           *Config
	driver        *driver
	pool          *peer.Pool
	admission     *admission
	acquaintances *acquaintances
	following     *following
	agreement     *Agreement
	counts        *counts
}

// poll asks a process every B/4 for what leases and ownership depend on. It continues
// while gossip misses the process: a path that still works counts.
func (p *poller) poll(ctx context.Context, id kv.Process, kick <-chan struct{}) {
	t := time.NewTicker(p.cfg.PollEvery)
	defer t.Stop()
	defer p.agreement.forget(id)
	for {
		p.pollOnce(ctx, id)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-kick:
			kv.Sleep(ctx, p.cfg.PollEvery/16) // gossip may say it often
		}
	}
}

func (p *poller) pollOnce(ctx context.Context, id kv.Process) {
	sent := p.cfg.Clock.Read()
	p.driver.checkPause(sent.Boot)
	said := p.message(id, sent, false)
	p.counts.polls.Add(1)
	var w wire.Poll
	if err := p.pool.Ask(ctx, id, p.cfg.Bound/2, wire.OpPoll, said, &w); err != nil {
		p.counts.pollFailures.Add(1)
		p.cfg.Log.Debug("a poll was not answered", "node", id.Node, "error", err)
		return
	}
	now := p.cfg.Clock.Read().Boot
	if p.admission.skewed(id, w.WallMS, sent.Wall) || p.admission.ahead(id, w.NewestVersion()) {
		return
	}
	p.admission.setTrouble(id.Node, "") // the trouble is over, whatever it was
	p.cfg.Versions.Observe(kv.Version(w.Clock))
	p.driver.heardOf(w.Certified, sent.Boot) // before the answer may have this host own, and so follow
	var o *Host
	p.driver.stepAbout(id, func(s *state, now time.Duration) {
		s.machine.Polled(now, id, sent.Boot, said.State, &w)
		s.members.process(id).toldAt = now
		o = s.host(id)
	})
	if o == nil {
		return
	}
	p.agreement.heard(id, w.Settings)
	p.acquaintances.introduce(w.Others)
	later(&o.polledAt, sent.Boot)
	o.setClock(time.Duration(min(w.BootNS, math.MaxInt64/2)), now)
	p.following.setLeased(o, o.log.Polled(sent.Boot, w.Head))
}

// message returns what this node tells a process about itself. Only an answer tells of
// certificates and settings: then this node hears the other one.
func (p *poller) message(to kv.Process, now kv.Moment, answer bool) (w *wire.Poll) {
	p.driver.withState(func(s *state) {
		w = s.machine.PollFor(to)
		w.WallMS, w.BootNS = now.Wall, uint64(now.Boot)
		w.Clock, w.Head = uint64(p.cfg.Versions.Next(now.Wall)), p.cfg.Events.Head()
		if answer {
			w.Certified, w.Settings = s.feeds.ages(p.cfg.Clock.Read().Boot), p.agreement.ownSum()
		}
	})
	return w
}
