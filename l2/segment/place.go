package segment

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Places in the index for new keys, including keys that were chosen to share hash bits:
// see the package comment.

// sampled is how many entries of a full page compete to be removed.
const sampled = 32

// makePlace makes sure that the index has a place for a new key: fewer than maxAlike
// words of its tag, in a page that is not full.
func (sh *shard) makePlace(k kv.Key, now time.Duration) {
	x := sh.index
	for x.alike(k.Hash, nil) >= maxAlike {
		c := candidate{sh: sh, ns: k.Namespace, now: now}
		x.alike(k.Hash, func(at slot, w word) { c.consider(at, w, 0) })
		c.remove(&sh.n.Collided)
	}
	if !x.splitIfDue(k.Hash, sh.store.hashAt) {
		c := candidate{sh: sh, ns: k.Namespace, now: now}
		x.sample(k.Hash, func(at slot, w word) { c.consider(at, w, w.hits()) })
		c.remove(&sh.n.CrowdedOut)
	}
}

// candidate is the entry that is removed for a new one. First choice is an entry that may
// no longer be served; then an entry of the same namespace, so that other namespaces keep
// theirs; then one of another namespace. Within each of these groups the entry of least
// worth is removed, and among equals the oldest.
type candidate struct {
	sh  *shard
	ns  kv.NamespaceID
	now time.Duration

	chosen bool
	worth  int
	at     slot
	word   word
	header
}

const (
	hidden  = -1          // the worth of an entry that may no longer be served
	foreign = maxHits + 1 // added to the worth of an entry of another namespace
)

func (c *candidate) consider(at slot, w word, worth int) {
	h := readHeader(c.sh.store.at(w.loc()))
	switch {
	case !c.sh.usable(h, w.partition(), c.now):
		worth = hidden
	case h.namespace != c.ns:
		worth += foreign
	}
	if !c.chosen || worth < c.worth || worth == c.worth && h.version < c.version {
		c.chosen, c.worth, c.at, c.word, c.header = true, worth, at, w, h
	}
}

// remove removes the candidate. If it could still be served, it counts as evicted.
func (c *candidate) remove(count *int64) {
	hash := c.sh.store.hashAt(c.word.loc())
	c.sh.countGone(hash, c.header, c.now)
	if c.worth != hidden {
		*count++
	}
	c.sh.removeEntry(hash, c.at, c.word, c.header)
}
