package segment

import (
	"encoding/binary"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// ghosts remembers the keys that admission has dropped lately: fingerprints with the time
// of their drop, counted in drops, in buckets of one cache line. A fingerprint older than
// the window counts as gone, and a full bucket loses its oldest. The shard's lock
// protects it.
//
//	slot   31…16 fingerprint, never zero   15…0 time >> shift
type ghosts struct {
	pages  *pages
	held   []pageID
	window uint32 // drops for which a key is remembered
	shift  uint8  // chosen so that a window is at most 2^12 ticks
	drops  uint32
	sized  int // entries that the table was sized for
}

const (
	ghostSlots    = 16 // per bucket
	ghostBuckets  = pageSize / (4 * ghostSlots)
	ghostShare    = 0.9 // ghosts per entry, as in the paper
	ghostFill     = 0.8 // share of the slots in use at a full window
	ghostTickBits = 12
	// Bits of the hash for the bucket; the fingerprint takes those above. The keys of a bucket share its bits.
	ghostBucketLow  = 8
	ghostBucketBits = 26
)

// fits reports whether the table suits a number of entries: not too small, not far too
// large.
func (g *ghosts) fits(entries int) bool {
	return g.held != nil && entries <= g.sized*3/2 && entries >= g.sized/4
}

// fit sizes the table anew and forgets its content. It reports whether the budget had
// room for the table.
func (g *ghosts) fit(entries int) bool {
	g.release()
	want := max(1, int(float64(entries)*ghostShare/ghostFill/(ghostBuckets*ghostSlots)+0.999))
	var ok bool
	if g.held, ok = g.pages.getAll(want); !ok {
		return false
	}
	g.sized = max(entries, 1)
	g.window = uint32(float64(entries)*ghostShare) + 1
	g.shift = 0
	for g.window>>g.shift > 1<<ghostTickBits {
		g.shift++
	}
	g.drops = 0
	return true
}

func (g *ghosts) release() {
	g.pages.putAll(g.held)
	g.held = nil
}

func (g *ghosts) bucket(h kv.Hash) []byte {
	n := uint64(len(g.held)) * ghostBuckets
	b := uint64(h) >> ghostBucketLow & (1<<ghostBucketBits - 1) * n >> ghostBucketBits
	return g.pages.bytes(g.held[b/ghostBuckets])[b%ghostBuckets*4*ghostSlots:][:4*ghostSlots]
}

func fingerprint(h kv.Hash) uint32 { return max(1, uint32(h>>(ghostBucketLow+ghostBucketBits))&0xffff) }

// live reports whether a slot's time lies within the window.
func (g *ghosts) live(slot uint32) bool {
	return uint16(g.drops>>g.shift)-uint16(slot) <= uint16(g.window>>g.shift)
}

// drop remembers a key that admission dropped.
func (g *ghosts) drop(h kv.Hash) {
	if len(g.held) == 0 {
		return
	}
	g.drops++
	now := uint16(g.drops >> g.shift)
	fp, b := fingerprint(h), g.bucket(h)
	put, age := 0, -1
	for i := 0; i < len(b); i += 4 {
		slot := binary.LittleEndian.Uint32(b[i:])
		if slot == 0 || slot>>16 == fp {
			put = i
			break
		}
		if a := int(now - uint16(slot)); a > age {
			put, age = i, a
		}
	}
	binary.LittleEndian.PutUint32(b[put:], fp<<16|uint32(now))
}

// has reports whether a key was dropped within the window.
func (g *ghosts) has(h kv.Hash) bool {
	_, ok := g.find(h)
	return ok
}

// forget removes a key that has come back.
func (g *ghosts) forget(h kv.Hash) {
	if b, ok := g.find(h); ok {
		clear(b)
	}
}

func (g *ghosts) find(h kv.Hash) ([]byte, bool) {
	if len(g.held) == 0 {
		return nil, false
	}
	fp, b := fingerprint(h), g.bucket(h)
	for i := 0; i < len(b); i += 4 {
		if slot := binary.LittleEndian.Uint32(b[i:]); slot>>16 == fp && g.live(slot) {
			return b[i : i+4], true
		}
	}
	return nil, false
}
