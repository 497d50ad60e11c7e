package segment

import (
	"math"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Info is what an entry carries beside its value.
type Info struct {
	Version  kv.Version
	Deadline kv.Deadline
	Flags    uint32
	Size     int // of the value, bytes
}

// NoLimit lets Get append a value of any length.
const NoLimit = math.MaxInt

// Get appends a key's value to dst. A value longer than limit bytes is not
// appended: Info.Size tells its length, and dst returns as it was.
func (s *Store) Get(dst []byte, k kv.Key, limit int, now time.Duration) ([]byte, Info, bool) {
	sh := s.shard(k.Hash)
	sh.mu.Lock()
	at, w, h, b, found := sh.find(k)
	if !found {
		sh.n.misses++
		sh.mu.Unlock()
		return dst, Info{}, false
	}
	if partition := k.Hash.Partition(); !sh.visible(h, partition, now) {
		sh.countHidden(h, partition)
		sh.removeEntry(k.Hash, at, w, h)
		sh.n.misses++
		sh.mu.Unlock()
		return dst, Info{}, false
	}
	sh.n.hits++
	if n := w.hits(); n < maxHits {
		sh.index.setWord(at, w.withHits(n+1))
	}
	info := Info{Version: h.version, Deadline: h.deadline, Size: h.valueLen}
	if h.marks&markFlags != 0 {
		info.Flags = h.clientFlags(b)
	}
	switch {
	case h.valueLen > limit:
	case h.marks&markChain != 0:
		// Copied without the lock; the pin keeps the chain.
		seg, _ := s.split(w.loc())
		s.meta[seg].pins++
		sh.mu.Unlock()
		dst = s.appendChain(dst, seg, h)
		sh.mu.Lock()
		sh.unpin(seg)
	default:
		dst = append(dst, h.value(b)...)
	}
	sh.mu.Unlock()
	return dst, info, true
}

// Peek returns what Get would, less the value, and counts as no hit.
func (s *Store) Peek(k kv.Key, now time.Duration) (Info, bool) {
	sh := s.shard(k.Hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	_, _, h, b, found := sh.find(k)
	if !found || !sh.visible(h, k.Hash.Partition(), now) {
		return Info{}, false
	}
	return Info{Version: h.version, Deadline: h.deadline, Flags: h.clientFlags(b), Size: h.valueLen}, true
}
