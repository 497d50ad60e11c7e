package segment

import (
	"bytes"
	"cmp"
	"math/bits"
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Position is a place in the order in which List visits the keys. The zero value is the
// first.
//
// The order is that of the shards; in a shard, of the roots of its directory; below a
// root, of the hash's branch with its bits reversed, and of the rest of the hash. A page
// contains the branches whose low bits are equal, so in this order it is one range. A page
// that splits becomes two ranges that follow each other, and two that merge become one: a
// position stays valid, and a key has the same place as long as it exists.
type Position struct {
	Shard, Root uint16
	Rest        uint64
}

// Wanted says which entries List returns.
type Wanted struct {
	Namespace kv.NamespaceID
	Prefix    []byte
	Partition func(uint16) bool
	Now       time.Duration
}

// Listed is an entry as List returns it.
type Listed struct {
	Key      []byte
	Size     int // of the value, bytes
	Memory   int // of the entry in the arena and the index, bytes
	Version  kv.Version
	Deadline kv.Deadline
}

// Valid reports whether a position exists in this store.
func (s *Store) Valid(p Position) bool {
	return int(p.Shard) < len(s.shards) && uint32(p.Root) < s.shards[p.Shard].index.base
}

// List appends the entries that have a value and that w wants, from a position up to the
// end of its index page, and returns the position after them; ok is false after the last
// page. looked is the number of index words that it has looked at. It ends within the
// page after limit entries, or after 64 KiB of their keys; entries of one hash stay
// together, so there may be up to 7 more.
//
// A caller that lists page by page up to the end gets each entry that exists throughout
// exactly once. The lock is held for one page. List does not count as a hit.
func (s *Store) List(p Position, w *Wanted, limit int, list []Listed) (_ []Listed, next Position, looked int, ok bool) {
	sh := s.shards[p.Shard]
	sh.mu.Lock()
	found, end, looked := sh.page(p, w)
	next = Position{p.Shard, p.Root, end}
	copied := 0
	for i, f := range found {
		if (i >= limit || copied >= scanCopy) && f.rest != found[i-1].rest {
			next.Rest = f.rest
			break
		}
		list = append(list, s.listed(f.loc))
		copied += len(list[len(list)-1].Key)
	}
	sh.mu.Unlock()
	if next.Rest == 0 {
		next = Position{p.Shard, p.Root + 1, 0}
	}
	if !s.Valid(next) {
		next = Position{p.Shard + 1, 0, 0}
	}
	return list, next, looked, s.Valid(next)
}

// ranked is an entry with its place below its root.
type ranked struct {
	rest uint64
	loc  location
}

// page returns the wanted entries of the page at a position, from there on, in their
// order. end is where the next page of the root begins; zero: there is none.
func (sh *shard) page(p Position, w *Wanted) (found []ranked, end uint64, looked int) {
	x, s := sh.index, sh.store
	branch := bits.Reverse32(uint32(p.Rest >> 32))
	id := x.dir[uint32(p.Root)+x.base*(branch&(1<<x.depth-1))]
	width := uint64(1) << (64 - x.pages.depth[id])
	end = p.Rest&^(width-1) + width // modulo 1<<64
	page := x.pages.bytes(id)
	for i := range wordsAPage {
		word := getWord(page, i)
		if word == 0 {
			continue
		}
		looked++
		if !w.Partition(word.partition()) {
			continue
		}
		b := s.at(word.loc())
		h := readHeader(b)
		if h.namespace != w.Namespace || !bytes.HasPrefix(h.key(b), w.Prefix) ||
			!sh.present(h, word.partition(), w.Now) {
			continue
		}
		if rest := restOf(s.hash(h.namespace, h.key(b))); rest >= p.Rest {
			found = append(found, ranked{rest, word.loc()})
		}
	}
	slices.SortFunc(found, func(a, b ranked) int { return cmp.Compare(a.rest, b.rest) })
	return found, end, looked
}

// restOf returns the place of a hash below its root.
func restOf(h kv.Hash) uint64 {
	return uint64(bits.Reverse32(branch(h)))<<32 | uint64(h)<<8&0xffffff00 | uint64(h)>>56
}

// listed describes the entry at a location.
func (s *Store) listed(loc location) Listed {
	b := s.at(loc)
	h := readHeader(b)
	memory := h.size()
	if h.marks&markChain != 0 {
		segment := s.cfg.SegmentSize
		memory = (memory + segment - 1) / segment * segment
	}
	return Listed{
		Key: bytes.Clone(h.key(b)), Size: h.valueLen, Memory: memory + 8, Version: h.version, Deadline: h.deadline,
	}
}
