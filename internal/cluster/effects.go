package cluster

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// What follows from a change of the state.

// carryOut carries out the machine's actions.
func (s *state) carryOut() { s.carryOutAll(s.machine.TakeActions()) }

func (s *state) carryOutAll(actions []ownership.Action) {
	changed := false
	var died []ownership.Died
	for _, a := range actions {
		switch a := a.(type) {
		case ownership.Ended:
			s.endOwnerships(a)
			changed = true
		case ownership.Retired:
			s.stopServing(a.Partitions)
			s.counts.retired.Add(int64(a.Partitions.Len()))
			s.cfg.Log.Debug("ownership retired", "partitions", a.Partitions.Len(), "reason", a.Why)
			changed = true
		case ownership.Begun:
			s.beginOwnerships(a)
			changed = true
		case ownership.Send:
			s.ballots.acquire(s, a)
		case ownership.SendAuth:
			s.ballots.authorize(s, a)
		case ownership.RingChanged:
			v := s.newView()
			died = s.report.ringChanged(s.members, v, s.out.view.Swap(v), died)
			s.cfg.Mirror.Viewed(v)
			changed = true
		case ownership.StateChanged:
			s.report.stateChanged(a, s.machine.Leaving())
			s.tellMeta()
			for _, m := range s.members { // polls tell the change earlier than gossip does
				wake(m.kick)
			}
		case ownership.Died:
			died = append(died, a)
		}
	}
	v := s.out.view.Load()
	s.report.hostsDied(died, v, v) // these were in no ring
	s.publish()
	if changed {
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// beginOwnerships starts ownerships.
func (s *state) beginOwnerships(a ownership.Begun) {
	s.cfg.Delegate.Begin(a, s.host)
	for p := range a.Partitions.All() {
		s.begun = max(s.begun+1, 1)
		if s.out.epochs[p].Swap(s.begun) == 0 {
			s.out.serves.Add(1)
		}
	}
	s.counts.begun.Add(int64(a.Partitions.Len()))
	s.cfg.Log.Debug("ownership begun", "partitions", a.Partitions.Len())
}

// endOwnerships ends ownerships.
func (s *state) endOwnerships(a ownership.Ended) {
	s.stopServing(a.Partitions)
	// asOf is stamped after the last change of the ownerships.
	asOf := s.cfg.Versions.Next(s.cfg.Clock.Read().Wall)
	for p := range a.Partitions.All() {
		if s.last[p].asOf = asOf; !a.Released.Has(p) {
			s.last[p] = lastOwnership{}
		}
	}
	s.cfg.Delegate.Ended(a.Partitions, asOf)
	s.counts.ended.Add(int64(a.Partitions.Len()))
	s.cfg.Log.Debug("ownership ended", "partitions", a.Partitions.Len(), "reason", a.Why)
}

// stopServing stops serving partitions. No change is made in them afterwards.
func (s *state) stopServing(set kv.PartitionSet) {
	for p := range set.All() {
		if epoch := s.out.epochs[p].Swap(0); epoch != 0 {
			s.last[p] = lastOwnership{epoch: epoch}
			s.out.serves.Add(-1)
		}
	}
	s.cfg.Mirror.Stopped(set)
	s.cfg.Delegate.Settle()
}

// judgeFeeds finds the feeds that are late by now, or in time again.
func (s *state) judgeFeeds(now time.Duration) {
	for _, c := range s.feeds {
		if c.MaxLag == 0 {
			continue
		}
		if late := !c.heard || now >= c.at+c.MaxLag; late != c.late {
			c.late, c.since, c.again = late, now, now+s.cfg.Bound
			s.cfg.Delegate.Late(c.Namespaces, late, s.out.owned())
			s.report.feedLate(c, now)
		}
		if c.late && now >= c.again {
			c.again = now + s.cfg.Bound
			s.cfg.Delegate.StillLate(c.Namespaces)
			s.report.feedLate(c, now)
		}
	}
	s.publishDue()
}

// judgeStall tells the machine about a stall, and ends all leases if the stall is a pause.
func (s *state) judgeStall(now, length time.Duration) {
	if length <= s.cfg.Bound/ownership.StallAbove {
		return
	}
	s.counts.stopped.Add(int64(length))
	if s.cfg.Bind == "" { // no other node can ever own what this one has
		return
	}
	stop, paused := s.machine.Stall(now, length)
	if paused {
		s.counts.pauses.Add(1)
		s.cfg.Log.Warn("this process did not run for "+stop.String(), "given_up", s.out.owned().Len())
		for _, o := range s.hosts {
			o.endLease()
		}
		s.cfg.Mirror.Paused()
	}
	s.carryOut()
}
