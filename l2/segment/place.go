package segment

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Places in the index for new keys, whoever has chosen them: see the package
// comment.

// sampled is how many entries of a full page are looked at for one that goes.
const sampled = 32

// makePlace makes sure that the index has a place for a new key: less than
// maxAlike words of its tag in a page that is not full.
func (sh *shard) makePlace(k kv.Key, now time.Duration) {
	x := sh.index
	for x.alike(k.Hash, nil) >= maxAlike {
		c := candidate{sh: sh, ns: k.Namespace, now: now}
		x.alike(k.Hash, func(at slot, w word) { c.consider(at, w, 0) })
		c.giveWay(&sh.n.collided)
	}
	if !x.ready(k.Hash, sh.store.hashAt) {
		c := candidate{sh: sh, ns: k.Namespace, now: now}
		x.sample(k.Hash, func(at slot, w word) { c.consider(at, w, w.hits()) })
		c.giveWay(&sh.n.crowdedOut)
	}
}

// candidate is the entry that gives way to a new one: one that may no longer be
// served, else one of the same namespace, that neighbours keep theirs; of those
// the one of least worth, and of these the oldest.
type candidate struct {
	sh  *shard
	ns  kv.NamespaceID
	now time.Duration

	any   bool
	worth int
	at    slot
	word  word
	header
}

const (
	hidden  = -1          // the worth of what may no longer be served
	foreign = maxHits + 1 // is worth more to other namespaces
)

func (c *candidate) consider(at slot, w word, worth int) {
	h := readHeader(c.sh.store.at(w.loc()))
	switch {
	case !c.sh.kept(h, w.partition(), c.now):
		worth = hidden
	case h.namespace != c.ns:
		worth += foreign
	}
	if !c.any || worth < c.worth || worth == c.worth && h.version < c.version {
		c.any, c.worth, c.at, c.word, c.header = true, worth, at, w, h
	}
}

// giveWay removes the candidate, and counts it as evicted if it was still good.
func (c *candidate) giveWay(count *int64) {
	c.sh.countGone(c.header, c.word.partition(), c.now)
	if c.worth != hidden {
		*count++
	}
	c.sh.removeEntry(c.sh.store.hashAt(c.word.loc()), c.at, c.word, c.header)
}
