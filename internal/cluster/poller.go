package cluster

import (
	"context"
	"math"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// poller polls the other nodes, and makes what this node tells about itself in polls and
// in its answers to them. It has no lock of its own: sent and sentWire are guarded by the
// driver's lock.
type poller struct {
	cfg           *Config
	driver        *driver
	caller        *caller
	admission     *admission
	acquaintances *acquaintances
	following     *following
	counts        *counts

	sent     []ownership.Promise // the promises in the last poll
	sentWire []wire.Promise      // the same in wire form
}

// poll asks a process every B/4 for what leases and ownership depend on. It continues
// while gossip misses the process: a path that still works counts.
func (p *poller) poll(ctx context.Context, id kv.Process, kick <-chan struct{}) {
	t := time.NewTicker(p.cfg.PollEvery)
	defer t.Stop()
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
	body, said, err := p.body(id, sent, false)
	if err != nil {
		p.cfg.Log.Error("poll", "error", err)
		return
	}
	p.counts.polls.Add(1)
	var w wire.Poll
	if err := p.caller.call(ctx, id, p.cfg.Bound/2, wire.OpPoll, body, &w); err != nil {
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
	var o *Owner
	p.driver.stepAbout(id, func(m *ownership.Machine, now time.Duration) {
		m.Polled(now, id, sent.Boot, said, fromPoll(&w))
		p.record(m, now, id, &w)
		o = p.driver.owner(id)
	})
	if o == nil {
		return
	}
	p.driver.heardOf(w.Certified, sent.Boot)
	p.acquaintances.introduce(w.Others)
	later(&o.polledAt, sent.Boot)
	o.setClock(time.Duration(min(w.BootNS, math.MaxInt64/2)), now)
	p.following.setLeased(o, o.log.Polled(sent.Boot, w.Head))
}

// record records what a process tells about itself, in a poll or in the answer to one.
// The driver's lock is held.
func (p *poller) record(m *ownership.Machine, now time.Duration, id kv.Process, w *wire.Poll) {
	m.Cannot(now, id.Node, nodes(w.Cannot))
	p.driver.members.recordState(id, w.State, w.Weight, w.In)
	if o := p.driver.members.process(id); o != nil {
		o.toldAt = now
	}
}

// body returns what this node tells about itself, and the state in it. Only an answer tells of
// certificates: then this node hears the other one.
func (p *poller) body(to kv.Process, now kv.Moment, answer bool) (body []byte, said uint64, err error) {
	p.driver.mu.Lock()
	defer p.driver.mu.Unlock()
	machine := p.driver.machine
	info := machine.InfoFor(to)
	w := wire.Poll{
		State: info.State, Joined: info.Joined, In: info.In, Weight: info.Weight, Leased: info.Leased,
		Ballots: p.promises(info.Ballots), Next: info.Next, Have: info.Have,
		WallMS: now.Wall, Clock: uint64(p.cfg.Versions.Next(now.Wall)), Head: p.cfg.Events.Head(),
		BootNS: uint64(now.Boot),
		Others: toStandings(info.Others), OthersAt: info.OthersAt, OthersHave: info.OthersHave,
	}
	if answer {
		w.Certified = p.driver.feeds.ages(p.cfg.Clock.Read().Boot)
	}
	for _, name := range machine.Unpolled() {
		w.Cannot = append(w.Cannot, string(name))
	}
	body, err = wire.MarshalBody(&w)
	return body, info.State, err
}

// promises is toPromises. It keeps the result for the next member, to which the machine
// tells the same. The driver's lock is held.
func (p *poller) promises(list []ownership.Promise) []wire.Promise {
	if len(list) == 0 {
		return nil
	}
	if len(p.sent) == 0 || &p.sent[0] != &list[0] {
		p.sent, p.sentWire = list, toPromises(list)
	}
	return p.sentWire
}
