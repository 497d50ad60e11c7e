package segment

import (
	"encoding/binary"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// ghosts remembers the keys that a queue has dropped lately: fingerprints with the time
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
	sized  int     // entries that the table was sized for
	share  float64 // keys remembered, for each entry
}

const (
	ghostSlots    = 16 // per bucket
	ghostBuckets  = pageSize / (4 * ghostSlots)
	ghostShare    = 0.9 // ghosts per entry, as in the paper
	freshShare    = 0.1 // of them those that are fresh: the share of admission learns from them
	ghostFill     = 0.8 // share of the slots in use at a full window
	ghostTickBits = 12
	// Bits of the hash for the bucket; the fingerprint takes those above. The keys of a bucket share its bits.
	ghostBucketLow  = 8
	ghostBucketBits = 26
)

// provide makes sure that the table suits a number of entries: not too small, not far too large.
func (g *ghosts) provide(entries int) bool {
	return g.held != nil && entries <= g.sized*3/2 && entries >= g.sized/4 || g.fit(entries)
}

// fit sizes the table anew and forgets its content. It reports whether the budget had
// room for the table.
func (g *ghosts) fit(entries int) bool {
	g.release()
	// The pages of few ghosts are rounded down, which forgets some early, and those of many up.
	want := max(1, int(float64(entries)*g.share/ghostFill/(ghostBuckets*ghostSlots)+g.share))
	var ok bool
	if g.held, ok = g.pages.getAll(want); !ok {
		return false
	}
	g.sized = max(entries, 1)
	g.window = uint32(float64(entries)*g.share) + 1
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

// drop remembers a key that the queue dropped.
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

// fresh reports whether a slot is one of the latest drops.
func (g *ghosts) fresh(slot []byte) bool {
	age := uint16(g.drops>>g.shift) - uint16(binary.LittleEndian.Uint32(slot))
	return float64(uint32(age)<<g.shift) <= freshShare*float64(g.sized)
}

// find returns the slot of a key that was dropped within the window, or nil.
func (g *ghosts) find(h kv.Hash) []byte {
	if len(g.held) == 0 {
		return nil
	}
	fp, b := fingerprint(h), g.bucket(h)
	for i := 0; i < len(b); i += 4 {
		if slot := binary.LittleEndian.Uint32(b[i:]); slot>>16 == fp && g.live(slot) {
			return b[i : i+4]
		}
	}
	return nil
}
