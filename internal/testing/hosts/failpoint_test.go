//go:build failpoint

package hosts

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Each guard has a scene that needs it. With the guard no promise is broken; without it
// the checker finds a broken promise.

// scene is a world of three nodes that have found each other. The reader reads keys that
// the owner owns. The third node is there to write through, and to take over.
type scene struct {
	*world
	reader, owner, third *vnode
	keys                 []*vkey // the owner owns them
	follower             *slowFollower
	gates                [3]*gates
	silent               atomic.Bool // gossip sends nothing
}

// needs is the panic of a scene that cannot go on.
type needs struct{ what string }

func (s *scene) need(ok bool, format string, args ...any) {
	if !ok {
		panic(needs{fmt.Sprintf(format, args...)})
	}
}

func (s *scene) by(v *vnode) string { return fmt.Sprint(v.name, ".", v.run) }

func (s *scene) set(v *vnode, k *vkey) bool  { return s.writeTo(v.s, s.by(v), k, false, false) }
func (s *scene) drop(v *vnode, k *vkey) bool { return s.writeTo(v.s, s.by(v), k, true, false) }

func (s *scene) get(v *vnode, k *vkey) int {
	n := s.readFrom(context.Background(), v.s, s.by(v), k)
	if v.s.engine.L1 != nil {
		v.s.engine.L1.Wait()
	}
	return n
}

// copied makes the reader have copies of some keys.
func (s *scene) copied(keys ...*vkey) {
	for _, k := range keys {
		s.need(s.set(s.owner, k), "a first write")
		s.need(s.get(s.reader, k) == 1, "a first read")
		hits := s.reader.s.telemetry.L1Stats().Hits
		s.get(s.reader, k)
		s.need(s.reader.s.telemetry.L1Stats().Hits > hits, "a copy")
	}
}

// stale waits until a read must not return the value before the last write any more.
func (s *scene) stale() { time.Sleep(s.bound + 100*time.Millisecond) }

func (s *scene) until(what string, ok func() bool) {
	for began := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		s.need(time.Since(began) < 20*time.Second, "%s", what)
	}
}

func (s *scene) holds(v *vnode, k *vkey) bool {
	return v.s.engine.Node.OwnershipEpoch(s.partition(k)) != 0
}
func (s *scene) owns(v, of *vnode, k *vkey) bool {
	o := v.s.engine.Node.View().AssignedOwner(s.partition(k))
	return o != nil && o.Process == of.s.engine.Node.Self()
}
func (s *scene) partition(k *vkey) uint16 {
	return s.reader.s.engine.Namespaces.Hash([]byte(s.space), k.name).Partition()
}

// flood writes n keys through the owner, none of which is a key of the scene.
func (s *scene) flood(n int) {
	for i := range n {
		_, _ = s.owner.s.Set(context.Background(), "default", fmt.Sprintf("flood%d", i), nil, cachesidecar.SetOptions{})
	}
}

// staged is an entry of the table: some guards, and a scene that needs them.
type staged struct {
	guards []failpoint.Guard
	alone  bool          // one missing guard breaks nothing: the others cover it
	why    string        // how the others cover it
	events int           // size of the logs; zero: the default
	loads  bool          // values are loaded from a database
	voted  bool          // under policy consistent, with all three nodes as voters
	bound  time.Duration // zero: the default
	name   string        // of the scene, if the guards do not tell it
	space  string        // the namespace of its keys; "": the default namespace
	play   func(s *scene)
}

var stage = []staged{
	{guards: []failpoint.Guard{failpoint.LeaseAtHit}, play: cutReader},
	{guards: []failpoint.Guard{failpoint.OwnerAtHit}, play: lostOwner},
	{guards: []failpoint.Guard{failpoint.AdmitAtHit}, events: 16, play: lostEvents},
	{guards: []failpoint.Guard{failpoint.AdmitAtHit, failpoint.AdmitAtFill}, alone: true, why: "what is kept is asked for again at its hit", play: lateFill},
	{guards: []failpoint.Guard{failpoint.NoteEvents}, play: lateFill},
	{guards: []failpoint.Guard{failpoint.ResetFloors}, events: 16, play: lostEvents},
	{guards: []failpoint.Guard{failpoint.Tail, failpoint.Gap}, alone: true, why: "a log never leaves events out, a follower never passes over those left out", events: 16, play: lostEvents},
	{guards: []failpoint.Guard{failpoint.Head}, play: slowReader},
	{guards: []failpoint.Guard{failpoint.NewEpoch}, play: restartedOwner},
	{guards: []failpoint.Guard{failpoint.AsOfFirst}, play: writeBehindRead},
	{guards: []failpoint.Guard{failpoint.OwnWrites}, play: ownWrite},
	{guards: []failpoint.Guard{failpoint.JoinRule}, play: oldCall},
	{guards: []failpoint.Guard{failpoint.Released}, play: thereAndBack},
	{guards: []failpoint.Guard{failpoint.Empty}, play: pausedAndBack},
	{guards: []failpoint.Guard{failpoint.AdmitAtHandoff}, play: deletedOnTheWay},
	{guards: []failpoint.Guard{failpoint.SecondCheck}, play: releasedBeforeStored},
	{guards: []failpoint.Guard{failpoint.Pause}, play: paused},
	{guards: []failpoint.Guard{failpoint.Stutter}, play: stuttered},
	{guards: []failpoint.Guard{failpoint.GapLocked}, play: foundByTwo},
	{guards: []failpoint.Guard{failpoint.Strange}, play: split},
	{guards: []failpoint.Guard{failpoint.Strange}, events: 16, play: split},
	{guards: []failpoint.Guard{failpoint.AckAll}, play: ackedByAll},
	{guards: []failpoint.Guard{failpoint.OwnWrites}, name: "verify", play: verifying},
	{guards: []failpoint.Guard{failpoint.Detach}, loads: true, play: joinedLoad},
	{guards: []failpoint.Guard{failpoint.Overdue}, name: "on its way to another host", play: lateThere},
	{guards: []failpoint.Guard{failpoint.Overdue}, name: "before its critical section", play: lateHere},
	{guards: []failpoint.Guard{failpoint.NoSlot}, space: "other", play: deletedOnTheWay},
	{guards: []failpoint.Guard{failpoint.TouchEvent}, play: ownTouch},
	{guards: []failpoint.Guard{failpoint.Unknown}, play: unknownWrite},
	{guards: []failpoint.Guard{failpoint.Detach, failpoint.AdmitAtLoad}, alone: true, why: "each of them keeps out what was loaded before a change", loads: true, play: lateLoad},
	{guards: []failpoint.Guard{failpoint.Withdraw}, play: sharedChange},
	{guards: []failpoint.Guard{failpoint.AdmitAtPublish}, play: sharedLate},
	{guards: []failpoint.Guard{failpoint.FloorEnds}, events: 16, play: sharedLostEvents},
	{guards: []failpoint.Guard{failpoint.FlushEnds}, play: sharedFlush},
	{guards: []failpoint.Guard{failpoint.ViewedEnds, failpoint.FloorEnds}, alone: true,
		why: "the end of an ownership is an event, and another owner is seen", play: sharedMove},
	{guards: []failpoint.Guard{failpoint.StoppedEnds, failpoint.ViewedEnds, failpoint.FloorEnds}, alone: true,
		why: "an ownership that ends outdates what this host has, and mostly another owner is seen before", play: sharedOwnersMove},
	{guards: []failpoint.Guard{failpoint.ForgetDead}, play: forgottenOwner},
	{guards: []failpoint.Guard{failpoint.Attest, failpoint.NamedInAnswer, failpoint.HigherBallot}, alone: true,
		why: "polls and answers to ACQUIRE tell of an owner that cannot be heard, and polls tell it which host takes its place", play: unheardOwner},
}

// cutReader: the reader is cut off, so that it does not hear of a write. It goes on
// serving its copy until its lease ends, and no longer.
func cutReader(s *scene) {
	k := s.keys[0]
	s.copied(k)
	s.net.Isolate(s.reader.ip)
	s.need(s.set(s.owner, k), "a write")
	s.stale()
	s.get(s.reader, k)
}

// lostOwner: the owner dies with a write that the reader has not heard of. The reader has
// a good lease on the next owner, which knows nothing of the write.
func lostOwner(s *scene) {
	s.copied(s.keys...)
	s.net.Cut(s.reader.ip, s.owner.ip)
	for _, k := range s.keys {
		s.need(s.set(s.third, k), "a write")
	}
	s.owner.kill()
	s.net.Heal()
	for _, k := range s.keys {
		s.until("a new owner", func() bool { return s.holds(s.third, k) || s.holds(s.reader, k) })
		s.get(s.reader, k)
	}
}

// lostEvents: the reader is cut off for less time than its lease lasts. The events that
// it has missed are gone by then, since many others have followed.
func lostEvents(s *scene) {
	k := s.keys[0]
	s.copied(k)
	loseEvents(s, k)
	s.get(s.reader, k)
}

// loseEvents makes the reader miss a write of a key, until its old value must not be read any
// more.
func loseEvents(s *scene, k *vkey) {
	s.net.Isolate(s.reader.ip)
	s.flood(1) // answers the FOLLOW in which the reader already waits
	time.Sleep(20 * time.Millisecond)
	s.need(s.set(s.owner, k), "a write")
	s.flood(500)
	time.Sleep(500 * time.Millisecond)
	s.net.Heal()
	s.stale()
}

// lateFill: a value is overwritten while it is on its way to the reader.
func lateFill(s *scene) {
	k := s.keys[0]
	s.need(s.set(s.owner, k), "a first write")
	release := s.gates[s.reader.i].hold(s.owner.ip)
	done := make(chan struct{})
	go func() { // ends with its read
		defer close(done)
		s.get(s.reader, k)
	}()
	time.Sleep(50 * time.Millisecond)
	s.need(s.set(s.owner, k), "a write")
	time.Sleep(50 * time.Millisecond)
	release()
	<-done
	s.stale()
	s.get(s.reader, k)
}

// slowReader: the reader polls and is polled as always, but does not get to apply events.
func slowReader(s *scene) {
	k := s.keys[0]
	s.copied(k)
	s.follower.stalled.Store(true)
	time.Sleep(100 * time.Millisecond)
	s.need(s.set(s.owner, k), "a write")
	s.stale()
	s.get(s.reader, k)
	s.follower.stalled.Store(false)
}

// forgottenOwner: gossip does not hear the owner, but polls still reach it. The two other
// hosts are told to forget it. The owner goes on, and neither host may begin to own what
// it owns.
func forgottenOwner(s *scene) {
	k := s.keys[0]
	s.copied(k)
	s.silent.Store(true)
	s.until("the owner to be missing", func() bool {
		at, _ := s.third.lists(s.owner.name)
		by, _ := s.reader.lists(s.owner.name)
		return at == cluster.StateMissing && by == cluster.StateMissing
	})
	for _, v := range []*vnode{s.reader, s.third} {
		_ = v.s.engine.Admin.Forget(kv.NodeID(s.owner.name))
	}
	// By then partitions are taken. The owner has not polled yet, and no host has told of
	// it again.
	time.Sleep(10 * time.Millisecond)
	s.need(s.set(s.third, k), "a write through the third")
	s.need(s.set(s.owner, k), "a write through the owner")
	s.stale()
	s.get(s.third, k)
	s.get(s.reader, k)
}

// unheardOwner: the third host is restarted and cannot hear the owner. The owner has
// taken over keys of the third's earlier process. The reader, which tells the third of
// the owner, gives the third its part.
func unheardOwner(s *scene) {
	var keys []*vkey
	for i := range 8 {
		name, _ := keyOwnedIn(s.third, s.space, fmt.Sprintf("third%d.", i))
		keys = append(keys, &vkey{name: name})
	}
	s.third.kill()
	s.until("the new owners of its keys", func() bool {
		return !slices.ContainsFunc(keys, func(k *vkey) bool { return !s.holds(s.owner, k) && !s.holds(s.reader, k) })
	})
	keys = slices.DeleteFunc(keys, func(k *vkey) bool { return !s.holds(s.owner, k) })
	for _, k := range keys {
		s.need(s.set(s.owner, k), "a first write")
	}
	s.net.Cut(s.third.ip, s.owner.ip)
	s.third.start()
	time.Sleep(4 * s.bound)
	for _, k := range keys {
		s.set(s.third, k)
	}
	s.stale()
	for _, k := range keys {
		s.get(s.owner, k)
	}
}

// restartedOwner: the owner's process is replaced by another process. The reader has
// applied nothing of the new process's log.
func restartedOwner(s *scene) {
	k := s.keys[0]
	s.flood(300)
	s.copied(k)
	s.follower.stalled.Store(true)
	s.owner.kill()
	time.Sleep(200 * time.Millisecond)
	s.owner.start()
	s.until("the owner's return", func() bool { return s.holds(s.owner, k) && s.owns(s.reader, s.owner, k) })
	s.need(s.set(s.owner, k), "a write of the new process")
	s.need(s.get(s.reader, k) == len(k.writes), "a read of the new process")
	s.need(s.set(s.owner, k), "another write")
	s.stale()
	s.get(s.reader, k)
	s.follower.stalled.Store(false)
}

// writeBehindRead: a value is overwritten after it was read and before it is attested.
func writeBehindRead(s *scene) {
	k := s.keys[0]
	s.need(s.set(s.owner, k), "a first write")
	failpoint.Do(failpoint.ValueRead, func() {
		done := make(chan struct{})
		go func() { // ends with its write
			defer close(done)
			s.need(s.set(s.owner, k), "a write")
		}()
		<-done
		time.Sleep(50 * time.Millisecond)
	})
	s.need(s.get(s.reader, k) == 1, "the value from before")
	s.stale()
	s.get(s.reader, k)
}

// ownWrite: the reader reads its own write at once, although the event has not come.
func ownWrite(s *scene) {
	k := s.keys[0]
	s.copied(k)
	s.follower.stalled.Store(true)
	time.Sleep(100 * time.Millisecond)
	s.need(s.set(s.reader, k), "a write")
	time.Sleep(time.Microsecond)
	s.get(s.reader, k)
	s.follower.stalled.Store(false)
}

// ownTouch: a value that the reader has touched ends when the TOUCH says, although the
// event has not come. The entry's version does not tell, since a TOUCH leaves it
// unchanged.
func ownTouch(s *scene) {
	k := s.keys[0]
	s.copied(k)
	s.follower.stalled.Store(true)
	time.Sleep(100 * time.Millisecond)
	s.need(s.reader.s.Touch(context.Background(), s.space, string(k.name), cachesidecar.TouchOptions{TTL: 50 * time.Millisecond}) == nil, "a touch")
	time.Sleep(100 * time.Millisecond)
	if n := s.get(s.reader, k); n != 0 {
		s.breaks("%s is write %d, though a touch through the same host has ended it", k.name, n)
	}
	s.follower.stalled.Store(false)
}

// unknownWrite: the reader does not learn the outcome of its write. It must not read its
// copy from before the write.
func unknownWrite(s *scene) {
	k := s.keys[0]
	s.copied(k)
	s.follower.stalled.Store(true)
	time.Sleep(100 * time.Millisecond)
	release := s.gates[s.reader.i].hold(s.owner.ip)
	s.need(!s.set(s.reader, k), "a write without an answer")
	release()
	if n := s.get(s.reader, k); n == 1 {
		s.breaks("%s is write 1, from before one through the same host that may have been done", k.name)
	}
	s.follower.stalled.Store(false)
}

// ackedByAll: a write with ack=all, while the reader does not get to apply it.
func ackedByAll(s *scene) {
	k := s.keys[0]
	s.copied(k)
	s.follower.stalled.Store(true)
	time.Sleep(100 * time.Millisecond)
	s.writeTo(s.owner.s, s.by(s.owner), k, false, true)
	time.Sleep(time.Microsecond)
	s.get(s.reader, k)
	s.follower.stalled.Store(false)
}

// verifying: VERIFY finds what is broken.
func verifying(s *scene) {
	r := s.reader.s.engine.Admin.Verify(&wire.Request{WaitMS: 3000}, s.reader.clock.Read().Boot+time.Minute)
	var v cachesidecar.Verified
	s.need(r.Status == wire.OK && wire.UnmarshalBody(r.Body, &v) == nil, "a check: %v", r.Err())
	s.need(len(v.Inconclusive) == 0, "a conclusion: %v", v.Inconclusive)
	for _, what := range v.Violations {
		s.breaks("%s", what)
	}
}

// oldCall: a call whose answer takes long is under way. A read begins that may not have
// this answer.
func oldCall(s *scene) {
	k := s.keys[0]
	s.need(s.set(s.owner, k), "a first write")
	release := s.gates[s.reader.i].hold(s.owner.ip)
	done := make(chan struct{}, 2)
	go func() { // ends with its read
		ctx, cancel := context.WithTimeout(context.Background(), 2*s.bound)
		defer cancel()
		s.readFrom(ctx, s.reader.s, s.by(s.reader), k)
		done <- struct{}{}
	}()
	time.Sleep(50 * time.Millisecond)
	s.need(s.set(s.third, k), "a write")
	s.stale()
	go func() { // ends with its read
		s.get(s.reader, k)
		done <- struct{}{}
	}()
	time.Sleep(50 * time.Millisecond)
	release()
	<-done
	<-done
}

// load begins a load of a key at its owner, and returns once the database has read the
// value.
func (s *scene) load(k *vkey) (done chan struct{}) {
	done = make(chan struct{})
	go func() { // ends with its read
		defer close(done)
		s.get(s.owner, k)
	}()
	time.Sleep(databaseTakes * 3 / 2)
	return done
}

// joinedLoad: a read joins a load that began before a change.
func joinedLoad(s *scene) {
	k := s.keys[0]
	s.need(s.set(s.owner, k), "a first write")
	done := s.load(k)
	s.need(s.set(s.owner, k), "a write")
	time.Sleep(time.Microsecond)
	s.get(s.owner, k)
	<-done
}

// lateLoad: a load that began before a change ends after it.
func lateLoad(s *scene) {
	k := s.keys[0]
	s.need(s.set(s.owner, k), "a first write")
	done := s.load(k)
	s.need(s.set(s.owner, k), "a write")
	<-done
	s.get(s.owner, k)
}

// databaseTakes is the time that a scene's database takes before it reads, and again
// before it answers.
const databaseTakes = 100 * time.Millisecond

// thereAndBack: a partition goes to another host and comes back. The reader hears nothing
// from that other host.
func thereAndBack(s *scene) {
	s.copied(s.keys...)
	weight := s.owner.s.cfg.Weight
	s.owner.s.engine.Node.SetWeight(1)
	var moved []*vkey
	s.until("a move", func() bool {
		moved = slices.DeleteFunc(slices.Clone(s.keys), func(k *vkey) bool { return !s.holds(s.third, k) })
		return !slices.ContainsFunc(s.keys, func(k *vkey) bool { return s.owns(s.third, s.third, k) && !s.holds(s.third, k) }) && len(moved) > 0
	})
	s.until("the reader's knowing of it", func() bool { return s.owns(s.reader, s.third, moved[0]) })
	s.net.Cut(s.reader.ip, s.third.ip)
	for _, k := range moved {
		s.need(s.set(s.third, k), "a write")
	}
	s.owner.s.engine.Node.SetWeight(weight)
	for _, k := range moved {
		s.until("the way back", func() bool { return s.holds(s.owner, k) && s.owns(s.reader, s.owner, k) })
	}
	s.stale()
	for _, k := range moved {
		s.get(s.reader, k)
	}
}

// pausedAndBack: a host does not run for so long that another host owns its partitions,
// with new values. Then it takes them back.
func pausedAndBack(s *scene) {
	for _, k := range s.keys {
		s.need(s.set(s.owner, k), "a first write")
	}
	s.pausedOwner()
	s.net.Heal()
	for _, k := range s.keys {
		s.until("the way back", func() bool { return s.holds(s.owner, k) })
	}
	s.stale()
	for _, k := range s.keys {
		s.get(s.third, k)
	}
}

// pausedOwner pauses the owner until other hosts have written its keys.
func (s *scene) pausedOwner() {
	s.owner.clock.freeze()
	s.net.Isolate(s.owner.ip)
	time.Sleep(10 * time.Second)
	for _, k := range s.keys {
		s.need(s.set(s.third, k), "a write while the owner is paused")
	}
	s.stale()
	s.owner.clock.thaw()
}

// paused: the owner pauses as in pausedAndBack, and is read before it has heard from any
// other host.
func paused(s *scene) {
	for _, k := range s.keys {
		s.need(s.set(s.owner, k), "a first write")
	}
	s.pausedOwner()
	for _, k := range s.keys {
		s.get(s.owner, k)
	}
}

// stuttered: like paused, but the owner stands still again and again, each time for less
// than B.
func stuttered(s *scene) {
	var keys []*contested
	for _, k := range s.keys {
		s.need(s.set(s.owner, k), "a first write")
		keys = append(keys, &contested{vkey: k})
	}
	s.stutterOwner(s.owner, s.third, keys)
}

// foundByTwo: like paused, but one goroutine finds that the host did not run. Another
// goroutine reads before the host has done what follows from that.
func foundByTwo(s *scene) {
	for _, k := range s.keys {
		s.need(s.set(s.owner, k), "a first write")
	}
	s.pausedOwner()
	read := func() {
		for _, k := range s.keys {
			s.get(s.owner, k)
		}
	}
	failpoint.Do(failpoint.GapFound, read)
	defer failpoint.Do(failpoint.GapFound, func() {})
	s.owner.s.engine.Node.CheckPause(s.owner.clock.Read().Boot)
	read()
}

// deletedOnTheWay: keys are deleted while their entries are on their way to the new owner, and
// the last one cannot be asked for them.
func deletedOnTheWay(s *scene) {
	for _, k := range s.keys {
		s.need(s.set(s.owner, k), "a first write")
	}
	release := s.gates[s.third.i].hold(s.owner.ip)
	s.owner.s.engine.Node.SetWeight(1)
	var moved []*vkey
	s.until("a move", func() bool {
		moved = slices.DeleteFunc(slices.Clone(s.keys), func(k *vkey) bool { return !s.holds(s.third, k) })
		return len(moved) > 0
	})
	done := make(chan bool, len(moved))
	for _, k := range moved { // all at once: each waits for the last owner
		go func() { done <- s.drop(s.third, k) }()
	}
	for range moved {
		s.need(<-done, "a delete")
	}
	release()
	time.Sleep(2 * time.Second) // the stream goes on
	for _, k := range moved {
		s.get(s.third, k)
	}
}

// releasedBeforeStored: a write finds its ownership, and the ownership ends before the
// write is stored. The next owner has the earlier entry, and does not hear of the write.
func releasedBeforeStored(s *scene) {
	k := s.keys[0]
	s.need(s.set(s.owner, k), "a first write")
	failpoint.Do(failpoint.WriteDue, func() {
		s.owner.s.engine.Node.SetWeight(1)
		s.until("a move", func() bool { return s.holds(s.third, k) || s.holds(s.reader, k) })
		time.Sleep(200 * time.Millisecond) // the entries follow
		s.net.Isolate(s.owner.ip)
	})
	s.set(s.owner, k)
	s.stale()
	s.get(s.third, k)
}

// lateThere: the owner stands still for less than B. A write of another host is on its
// way to it, and is given up meanwhile. Another write is acknowledged before the owner
// gets to the first one.
func lateThere(s *scene) {
	k := s.keys[0]
	s.need(s.set(s.owner, k), "a first write")
	s.owner.clock.freeze()
	s.net.Isolate(s.owner.ip)
	s.need(!s.set(s.third, k), "a write that is given up")
	time.Sleep(requestTimeout / 2)
	s.owner.clock.thaw()
	s.need(s.set(s.owner, k), "a write when the owner goes on")
	s.net.Heal()
	s.stale()
	s.get(s.owner, k)
}

// lateHere: like lateThere, but the owner's own app has sent the first write. The owner
// has read the write, and has not yet stored it.
func lateHere(s *scene) {
	k := s.keys[0]
	s.need(s.set(s.owner, k), "a first write")
	failpoint.Do(failpoint.WriteDue, func() {
		time.Sleep(requestTimeout * 3 / 2)
		s.need(s.set(s.owner, k), "a write when the owner goes on")
	})
	s.set(s.owner, k)
	s.stale()
	s.get(s.owner, k)
}

// split: in a split the owner takes its partitions once more, later than the other side
// did. Then the other side overwrites what the owner has. Once the sides have heard of
// each other, the owner's values are gone.
func split(s *scene) {
	s.net.Isolate(s.owner.ip)
	s.owner.clock.freeze()
	time.Sleep(10 * time.Second)
	s.owner.clock.thaw()
	time.Sleep(s.bound) // the owner finds out that it did not run
	for _, k := range s.keys {
		s.until("the owner's going on", func() bool { return s.holds(s.owner, k) })
		s.need(s.set(s.owner, k), "a write on this side")
	}
	for _, k := range s.keys {
		s.need(s.set(s.third, k), "a write on the other side")
	}
	if s.events > 0 {
		for i := range 200 {
			_, _ = s.third.s.Set(context.Background(), "default", fmt.Sprintf("flood%d", i), nil, cachesidecar.SetOptions{})
		}
	}
	s.net.Heal()
	s.agreed(30 * time.Second)
	s.stale()
	for _, k := range s.keys {
		s.get(s.owner, k)
	}
}

// play runs a scene without some guards. It returns the broken promises. doubt is what
// the scene could not go on without, or "".
func play(t *testing.T, seed uint64, c *staged, guards ...failpoint.Guard) (broken []string, doubt string) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, seed, 3)
		w.keys, w.collect, w.noRelay, w.events = nil, true, true, c.events
		w.bound, w.shares = cmp.Or(c.bound, w.bound), true
		if c.voted {
			w.voters = []string{"n0", "n1", "n2"}
		}
		if c.loads {
			w.origin = newDatabase(always(databaseTakes))
		}
		s := &scene{world: w, reader: w.nodes[0], owner: w.nodes[1], third: w.nodes[2]}
		s.follower = &slowFollower{virtualClock: s.reader.clock}
		s.reader.reads = s.follower
		for i, v := range w.nodes {
			s.gates[i] = &gates{}
			v.dials = s.gates[i].dial(v)
			v.gossips = func(g memberlist.Transport) memberlist.Transport { return mute{g, &s.silent} }
			v.start()
		}
		w.agreed(15 * time.Second)
		if c.space != "" {
			w.space = c.space
		}
		for i := range 8 {
			name, _ := keyOwnedIn(s.owner, w.space, fmt.Sprintf("key%d.", i))
			s.keys = append(s.keys, &vkey{name: name})
		}
		warm, _ := keyOwnedBy(s.owner, "warm")
		for _, v := range w.nodes { // makes connections
			_, _ = v.s.Get(t.Context(), "default", string(warm), cachesidecar.GetOptions{})
		}
		time.Sleep(2 * time.Second)
		func() {
			defer failpoint.Set()
			defer func() {
				switch p := recover().(type) {
				case nil:
				case needs:
					doubt = p.what
				default:
					panic(p)
				}
			}()
			failpoint.Set(guards...)
			c.play(s)
		}()
		s.follower.stalled.Store(false)
		w.net.Heal()
		w.mu.Lock()
		broken = w.broken
		w.mu.Unlock()
		for _, v := range w.nodes {
			v.clock.thaw()
			if v.s != nil {
				v.kill()
			}
		}
		time.Sleep(time.Minute)
	})
	return broken, doubt
}

type shownGuard struct {
	guard failpoint.Guard
	test  string
	by    func(t *testing.T, bad func(format string, args ...any))
}

// shown are guards that have a test of one mechanism instead of a scene. by runs the
// test, which reports what it finds.
var shown = []shownGuard{
	{failpoint.OfferFilter, "TestOfferGivesNothingNewer; no history can tell: such writes are of unknown outcome", offerGivesNothingNewer},
	{failpoint.LateWrite, "TestVirtualWriteThroughSettles; no history can tell", func(t *testing.T, bad func(string, ...any)) {
		settles(t, "has less to hold", wire.OpSet, nil, bad)
	}},
	{failpoint.Superseded, "TestVirtualWriteThroughSupersededAtOrigin; no history can tell", supersededAtOrigin},
	{failpoint.OverdueOrigin, "TestOverdueAtOrigin; histories of worlds know nothing of an origin's", overdueAtOrigin},
	{failpoint.ConnEnded, "TestWritesEndWithTheirApp; histories of worlds know nothing of connections", writesEndWithTheirApp},
	{failpoint.Copied, "TestVirtualFillOverEvicted; histories of worlds know nothing of an eviction's", fillOverEvicted},
	{failpoint.EndFromAsked, "TestVirtualCopyEndsWithItsEntry", copyEndsWithItsEntry},
	{failpoint.JoinEnded, "TestNoReadHasWhatEndedBefore", noReadHasWhatEndedBefore},
	{failpoint.JoinOwnership, "TestVirtualLoadOfEndedOwnership", loadOfEndedOwnership},
	{failpoint.SourceOfEntry, "TestEntriesComeFromTheirSource", entriesComeFromTheirSource},
	{failpoint.Acquaintance, byStranger, anotherProcess},
	{failpoint.Hint, byStranger, goneOut},
	{failpoint.Hearsay, byStranger, goneOut},
	{failpoint.HoldBack, "TestVirtualMaxLag", laggingUntilBad(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)},
	{failpoint.LateRaises, "TestVirtualLateCopy", lateCopy},
	{failpoint.Certify, "TestVirtualMaxLag", laggingUntilBad(25, 49, 59)},
	{failpoint.FeedState, "TestVirtualSlotMoved", slotMoved},
	{failpoint.YoungState, "TestVirtualSlotMovedAtYoung", slotMovedAtYoung},
}

// laggingUntilBad runs with the faults of some seeds until one is bad.
func laggingUntilBad(seeds ...uint64) func(*testing.T, func(string, ...any)) {
	return func(t *testing.T, bad func(string, ...any)) {
		found := false
		for _, seed := range seeds {
			if !found {
				lagging(t, seed, func(format string, args ...any) {
					found = true
					bad(format, args...)
				})
			}
		}
	}
}

const byStranger = "TestVirtualSlanderAcrossACut"

func anotherProcess(t *testing.T, bad func(string, ...any)) { slander(t, true, bad) }
func goneOut(t *testing.T, bad func(string, ...any))        { slander(t, false, bad) }

// tries bounds the runs in which a scene must find its guards missing.
const tries = 10

// TestFailpoint prints a table: in which run the checker found each guard to be missing.
func TestFailpoint(t *testing.T) {
	var table strings.Builder
	row := func(name string, found string) { fmt.Fprintf(&table, "\n%-64s %s", name, found) }
	for i := range stage {
		c := &stage[i]
		var names []string
		for _, g := range c.guards {
			names = append(names, g.String())
		}
		name := strings.Join(names, " + ")
		if c.events > 0 {
			name += ", short logs"
		}
		if c.name != "" {
			name += ", " + c.name
		}
		t.Run(name, func(t *testing.T) {
			if broken, doubt := play(t, 1, c); len(broken) > 0 {
				t.Fatalf("with all guards: %s (%s)", broken[0], doubt)
			}
			if c.alone {
				for _, g := range c.guards {
					if broken, _ := play(t, 1, c, g); len(broken) > 0 {
						t.Errorf("without %v alone, though %s: %s", g, c.why, broken[0])
					}
				}
			}
			for try := 1; try <= tries; try++ {
				broken, doubt := play(t, uint64(try), c, c.guards...)
				if len(broken) > 0 {
					t.Logf("run %d: %s", try, broken[0])
					found := fmt.Sprintf("found in run %d", try)
					if c.alone {
						found += "; not each alone: " + c.why
					}
					row(name, found)
					return
				}
				if doubt != "" {
					t.Logf("run %d did not come to %s", try, doubt)
				}
			}
			t.Errorf("nothing was found in %d runs", tries)
		})
	}
	for _, c := range shown {
		t.Run(c.guard.String(), func(t *testing.T) {
			c.by(t, t.Errorf)
			failpoint.Set(c.guard)
			defer failpoint.Set()
			found := 0
			c.by(t, func(string, ...any) { found++ })
			if found == 0 {
				t.Errorf("nothing was found")
			}
			row(c.guard.String(), "found by "+c.test)
		})
	}
	t.Log(table.String())
}

var failpointRuns = flag.Int("failpoint.random", 0, "runs at random without each guard")

// TestFailpointAtRandom prints in how many random runs each guard is found to be missing.
// Most guards are found seldom; that is why there are scenes.
func TestFailpointAtRandom(t *testing.T) {
	if *failpointRuns == 0 {
		t.Skip("it decides nothing: -failpoint.random 50 runs it")
	}
	defer failpoint.Set()
	for g := range failpoint.Guards {
		failpoint.Set(g)
		found := 0
		for seed := range *failpointRuns {
			if w := random(t, uint64(seed), true); len(w.broken) > 0 {
				found++
			}
		}
		t.Logf("%-40s found in %d of %d", g, found, *failpointRuns)
	}
}
