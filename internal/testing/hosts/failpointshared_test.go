//go:build failpoint

package hosts

import (
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
)

// The scenes of the memory that apps share.

// published makes some keys readable in a host's shared memory.
func (s *scene) published(v *vnode, keys ...*vkey) {
	for _, k := range keys {
		s.readToShare(v.s, k, 2)
		s.need(s.readShared(v, k) > 0, "a value in the shared memory")
	}
}

// sharedChange: a value is overwritten after it was published.
func sharedChange(s *scene) {
	k := s.keys[0]
	s.need(s.set(s.owner, k), "a first write")
	s.published(s.owner, k)
	s.need(s.set(s.owner, k), "a write")
	s.stale()
	s.readShared(s.owner, k)
}

// sharedLate: a value is overwritten after it was read, and before it is published.
func sharedLate(s *scene) {
	k := s.keys[0]
	s.need(s.set(s.owner, k), "a first write")
	s.published(s.owner, k)
	s.need(s.set(s.owner, k), "a second write")
	failpoint.Do(failpoint.ValueRead, func() { s.need(s.set(s.owner, k), "a write") })
	s.readToShare(s.owner.s, k, 1)
	s.stale()
	s.readShared(s.owner, k)
}

// sharedLostEvents is lostEvents, of a copy that apps share.
func sharedLostEvents(s *scene) {
	k := s.keys[0]
	s.copied(k)
	s.published(s.reader, k)
	loseEvents(s, k)
	s.readShared(s.reader, k)
}

// sharedFlush: a namespace is flushed after its values were published.
func sharedFlush(s *scene) {
	s.copied(s.keys[:4]...)
	for _, k := range s.keys[:4] {
		s.published(s.owner, k)
		s.published(s.reader, k)
	}
	s.need(s.flush(s.third, time.Second), "a flush")
	s.stale()
	for _, k := range s.keys[:4] {
		s.readShared(s.owner, k)
		s.readShared(s.reader, k)
	}
}

// away moves partitions from the owner to the third host, and returns the keys in them.
func (s *scene) away() (moved []*vkey) {
	s.owner.s.engine.Node.SetWeight(1)
	s.until("a move", func() bool {
		moved = slices.DeleteFunc(slices.Clone(s.keys), func(k *vkey) bool { return !s.holds(s.third, k) })
		return len(moved) > 0 && !slices.ContainsFunc(s.keys, func(k *vkey) bool {
			return s.owns(s.third, s.third, k) && !s.holds(s.third, k)
		})
	})
	return moved
}

// sharedMove: a partition goes to another host, from which the reader hears nothing, while the
// lease on the owner before is renewed.
func sharedMove(s *scene) {
	s.copied(s.keys...)
	s.published(s.reader, s.keys...)
	moved := s.away()
	s.until("the reader's knowing of it", func() bool { return s.owns(s.reader, s.third, moved[0]) })
	s.net.Cut(s.reader.ip, s.third.ip)
	for _, k := range moved {
		s.need(s.set(s.third, k), "a write")
	}
	s.stale()
	for _, k := range moved {
		s.readShared(s.reader, k)
	}
}

// sharedOwnersMove: a partition goes to another host, from which the owner before hears
// nothing.
func sharedOwnersMove(s *scene) {
	for _, k := range s.keys {
		s.need(s.set(s.owner, k), "a first write")
	}
	s.published(s.owner, s.keys...)
	moved := s.away()
	s.net.Cut(s.owner.ip, s.third.ip)
	for _, k := range moved {
		s.need(s.set(s.third, k), "a write")
	}
	s.stale()
	for _, k := range moved {
		s.readShared(s.owner, k)
	}
}
