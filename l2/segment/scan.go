package segment

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// scanCopy is how much a scan copies at a time under a shard's lock, in bytes.
const scanCopy = 64 << 10

// scanPages is how many directory slots a scan looks at while it holds the lock.
const scanPages = 64

// MaxHits is the largest number of hits that the store counts for an entry.
const MaxHits = maxHits

// Scan yields the visible entries that have been hit exactly hits times, of the
// partitions that want accepts. (A caller that wants the hottest entries first scans for
// MaxHits, then for fewer.) No lock is held while yield runs; the bytes of an entry are
// valid until yield returns. An entry that stays throughout is yielded at least once,
// unless writes are so dense that a page never rests. An entry that moves may be yielded
// twice.
func (s *Store) Scan(want func(partition uint16) bool, hits int, now time.Duration, yield func(kv.Entry) bool) {
	for _, sh := range s.shards {
		sh.hold(1)
		ok := sh.scan(want, hits, now, yield)
		sh.hold(-1)
		if !ok {
			return
		}
	}
}

// scanner is the position of a scan in a shard and what the scan has copied there.
type scanner struct {
	sh       *shard
	want     func(uint16) bool
	hits     int
	now      time.Duration
	batch    []kv.Entry
	buf      []byte
	d, at    int // directory slot, word
	removals int // of the index, when the page was begun
	restarts int
}

func (sh *shard) scan(want func(uint16) bool, hits int, now time.Duration, yield func(kv.Entry) bool) bool {
	c := &scanner{sh: sh, want: want, hits: hits, now: now, buf: make([]byte, 0, 2*scanCopy)}
	for more := true; more; {
		more = c.fill()
		ok := true
		for i := 0; ok && i < len(c.batch); i++ {
			ok = yield(c.batch[i])
		}
		if !ok {
			return false
		}
	}
	return true
}

// fill copies the next entries. It reports whether there may be more.
func (sc *scanner) fill() bool {
	sh := sc.sh
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sc.batch, sc.buf = sc.batch[:0], sc.buf[:0]
	x := sh.index
	if sc.at > 0 && sc.removals != x.removals && sc.restarts < 3 {
		sc.at = 0 // a removal may have moved a word to before this position
		sc.restarts++
	}
	for end := sc.d + scanPages; sc.d < len(x.dir); sc.d, sc.at, sc.restarts = sc.d+1, 0, 0 {
		if sc.d == end {
			return true
		}
		if !x.canonical(sc.d) {
			continue
		}
		sc.removals = x.removals
		page := x.pages.bytes(x.dir[sc.d])
		for ; sc.at < wordsAPage; sc.at++ {
			w := getWord(page, sc.at)
			if w == 0 || w.hits() != sc.hits || !sc.want(w.partition()) {
				continue
			}
			if !sc.copy(w) {
				return true
			}
			if len(sc.buf) >= scanCopy {
				sc.at++
				return true
			}
		}
	}
	return false
}

// copy adds an entry to the batch and reports whether the batch may grow. A chain is
// copied without the lock, and is the only entry of its batch.
func (sc *scanner) copy(w word) bool {
	sh, s := sc.sh, sc.sh.store
	b := s.at(w.loc())
	h := readHeader(b)
	if !sh.visible(h, w.partition(), sc.now) {
		return true
	}
	chain := h.marks&markChain != 0
	if chain && len(sc.batch) > 0 {
		return false // first the batch as it is; then this entry again
	}
	start := len(sc.buf)
	sc.buf = append(sc.buf, h.key(b)...)
	e := kv.Entry{
		Key:   kv.Key{Hash: s.hash(h.namespace, h.key(b)), Namespace: h.namespace},
		Facts: h.facts(b),
	}
	if chain {
		id, _ := s.split(w.loc())
		s.meta[id].pins++
		sh.mu.Unlock()
		sc.buf = s.appendChain(sc.buf, id, h)
		sh.mu.Lock()
		sh.unpin(id)
	} else {
		sc.buf = append(sc.buf, h.value(b)...)
	}
	e.Key.Bytes = sc.buf[start : start+int(h.keyLen) : start+int(h.keyLen)]
	e.Value = sc.buf[start+int(h.keyLen) : len(sc.buf) : len(sc.buf)]
	sc.batch = append(sc.batch, e)
	if chain {
		sc.at++
	}
	return !chain
}
