package segment

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Stale describes a value that only GetStale returns.
type Stale struct {
	Info                      // Deadline is when the value will be gone
	Ended       time.Duration // how long ago it was softened or, if it was not, expired
	Invalidated bool          // it was softened
}

// GetStale appends the value of a key to dst if Soften has left it, if it has expired and is in
// its grace, or if it is held back.
func (s *Store) GetStale(dst []byte, k kv.Key, now time.Duration) ([]byte, Stale, bool) {
	sh := s.shard(k.Hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	_, w, h, b, found := sh.find(k)
	partition := k.Hash.Partition()
	if !found || h.negative() || sh.visible(h, partition, now) || !sh.usable(h, partition, now) {
		return dst, Stale{}, false
	}
	t := Stale{Info: h.info(b), Invalidated: h.marks&markStale != 0}
	t.Deadline, t.Kind = s.due(h), kv.Stale
	if t.Invalidated {
		// The deadline was rounded up. If Removal.Stale has shortened the time of the value,
		// Ended is too much by what it was shortened: a value that seems older is safe.
		t.Ended = max(0, s.namespaces[k.Namespace].staleLimit()-h.deadline.Remaining(now))
	} else if h.deadline.Passed(now) {
		t.Ended = now - time.Duration(h.deadline)*time.Millisecond
	} else { // it is held back
		t.Ended = now - sh.counts[h.namespace].heldAt
	}
	if h.marks&markChain != 0 {
		return sh.appendPinned(dst, w.loc(), h), t, true
	}
	return append(dst, h.value(b)...), t, true
}

func (n *namespace) staleLimit() time.Duration { return time.Duration(n.stale.Load()) }
