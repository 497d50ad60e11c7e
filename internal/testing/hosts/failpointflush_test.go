//go:build failpoint

package hosts

import (
	"context"
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/testing/history"
)

// Scenes of flushes of the cluster. For the checker each flush is a deletion of all keys.

var flushes = []staged{
	{guards: []failpoint.Guard{failpoint.FlushClocks}, play: flushBehind},
	{guards: []failpoint.Guard{failpoint.FlushAgain}, play: flushUnseen},
	{guards: []failpoint.Guard{failpoint.FlushMajority}, voted: true, play: flushAlone},
	{
		guards: []failpoint.Guard{failpoint.FlushOwners, failpoint.FloorsInLog, failpoint.FloorsInAuth, failpoint.FloorsInHello},
		alone:  true, why: "each reaches an owner while its authority lasts", voted: true, bound: 500 * time.Millisecond, play: flushUnheard,
	},
	{guards: []failpoint.Guard{failpoint.FloorsInLog, failpoint.FloorsInAuth, failpoint.FloorsInAcquire, failpoint.FloorsInHello}, alone: true, why: "each tells who was not asked", voted: true, play: flushAcross},
	{guards: []failpoint.Guard{failpoint.FloorsInReset, failpoint.FloorsInHello, failpoint.FloorsInAcquire}, alone: true, why: "each tells who comes back", events: 16, play: flushMissed},
	// FlushClocks alone breaks other scenes. With it, the entries on their way are below
	// the flush.
	{guards: []failpoint.Guard{failpoint.FloorAtHandoff, failpoint.FlushClocks, failpoint.FloorsInLog}, play: flushOnTheWay},
}

// flush flushes all namespaces through a host, and reports whether that was acknowledged.
func (s *scene) flush(v *vnode, within time.Duration) bool {
	f := s.begin(history.Op{Kind: history.Flush, Host: s.by(v)})
	if flushThrough(v, "", within) != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked(f, history.Done)
	return true
}

func (s *scene) setAll(v *vnode) {
	for _, k := range s.keys {
		s.need(s.set(v, k), "a first write")
	}
}

func (s *scene) getAll(v *vnode) {
	for _, k := range s.keys {
		s.get(v, k)
	}
}

// flushBehind: a host whose clock is behind flushes. The owner, whose clock is ahead, has
// written the keys, and a third host has copies.
func flushBehind(s *scene) {
	s.owner.clock.offset.Store(400)
	time.Sleep(time.Second)
	s.follower.stalled.Store(true)
	time.Sleep(s.bound / 3)
	s.setAll(s.owner)
	s.getAll(s.third)
	s.flush(s.reader, time.Second)
	s.follower.stalled.Store(false)
	s.stale()
	s.getAll(s.owner)
	s.getAll(s.third)
}

// flushUnseen: a host that was away finds one other host again. It flushes before it has
// heard of the owner again. By then the owner reaches no host, for less than the
// detection time.
func flushUnseen(s *scene) {
	s.setAll(s.owner)
	s.net.Isolate(s.reader.ip)
	s.until("all to be gone", func() bool { return len(s.reader.s.engine.Node.View().Others()) == 0 })
	time.Sleep(s.bound)
	s.net.Heal()
	s.net.Isolate(s.owner.ip)
	s.until("the third", func() bool { return len(s.reader.s.engine.Node.View().Others()) == 1 })
	s.flush(s.reader, s.bound/2)
	s.stale()
	s.getAll(s.owner)
}

// flushAlone: a host that is cut off from the others flushes.
func flushAlone(s *scene) {
	s.setAll(s.owner)
	s.net.Isolate(s.reader.ip)
	time.Sleep(2 * s.bound)
	s.flush(s.reader, time.Second)
	s.stale()
	s.getAll(s.owner)
}

// flushUnheard: an owner whose clock is ahead writes. It is not reached for a while, and
// its authority goes on. Messages from the flushing host do not reach it once the flush
// has been acknowledged.
func flushUnheard(s *scene) {
	s.owner.clock.offset.Store(400)
	time.Sleep(2 * s.bound)
	s.net.Isolate(s.owner.ip)
	time.Sleep(s.bound / 16)
	s.setAll(s.owner)
	done := make(chan struct{})
	go func() { // ends with its flush
		defer close(done)
		s.flush(s.reader, 2*s.bound)
	}()
	time.Sleep(s.bound * 9 / 16)
	s.net.Heal()
	select {
	case <-done:
		s.net.Isolate(s.reader.ip)
	default:
	}
	<-done
	s.stale()
	s.getAll(s.owner)
}

// flushAcross: the link between the flushing host and an owner is cut. The owner goes on
// with another voter.
func flushAcross(s *scene) {
	s.setAll(s.owner)
	s.net.Cut(s.third.ip, s.owner.ip) // they cannot poll each other: the third goes out
	s.flush(s.third, 3*s.bound)
	s.stale()
	s.getAll(s.owner)
	s.getAll(s.reader)
}

// flushMissed: a host does not run while all namespaces are flushed. It has copies when
// it runs again, and the logs have lost the flush by then.
func flushMissed(s *scene) {
	s.copied(s.keys...)
	s.reader.clock.freeze()
	s.net.Isolate(s.reader.ip)
	time.Sleep(5 * s.bound)
	s.need(s.flush(s.third, time.Second), "a flush")
	s.flood(300)
	for range 100 { // fill the third's log
		s.third.s.engine.Changes.RaiseFloor(s.third.s.engine.Node.Owned(), s.third.s.engine.HLC.Next(0))
	}
	s.reader.clock.thaw()
	s.net.Heal()
	s.agreed(20 * time.Second)
	s.stale()
	s.getAll(s.reader)
}

// flushOnTheWay: a host that has not heard of a flush hands over older entries, later
// than the flush. It hears of the flush while the entries are on their way.
func flushOnTheWay(s *scene) {
	s.setAll(s.owner)
	failpoint.Do(failpoint.FlushDue, func() { s.net.Cut(s.reader.ip, s.owner.ip) })
	done := make(chan struct{})
	go func() { // ends with its flush
		defer close(done)
		s.flush(s.reader, 5*s.bound)
	}()
	s.until("the third to have noted it", func() bool { return len(s.third.s.engine.Namespaces.Floors()) > 0 })
	release := s.gates[s.third.i].hold(s.owner.ip)
	s.owner.s.engine.Node.SetWeight(1)
	var moved []*vkey
	s.until("a move", func() bool {
		moved = slices.DeleteFunc(slices.Clone(s.keys), func(k *vkey) bool { return !s.holds(s.third, k) })
		return len(moved) > 0
	})
	time.Sleep(20 * time.Millisecond) // the entries have been sent
	s.net.Heal()
	<-done
	release()
	s.stale()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, k := range moved {
		s.readFrom(ctx, s.third.s, s.by(s.third), k)
	}
}

func init() { stage = append(stage, flushes...) }
