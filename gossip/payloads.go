package gossip

import (
	"hash/maphash"
	"math/bits"
	"slices"
	"sync"
	"time"
)

// Bounds of payloads. Payloads use the room that membership leaves in its packets. So
// membership never waits for them, and sends no more packets: 1,400 bytes to 3 nodes
// every gossipInterval, 84 kB/s.
const (
	maxPayload    = 1024        // bytes of one; fits beside the longest cluster name
	maxWaiting    = 1024        // payloads that wait to go out
	maxWait       = time.Second // later a waiting payload is dropped
	maxInPacket   = 16          // limits the work of each node; memberlist's bound is 255
	maxHops       = 8           // of one that goes round
	rememberHeard = 4096        // at least this many of the latest are recognized
)

// payloads are the bytes of other packages that gossip carries (see Gossip.Broadcast) and
// that wait to go out: a few copies of each to random nodes. A node that gets a payload
// for the first time passes it on in the same way. So it reaches nodes that its origin
// does not reach. If there is no room, a payload is dropped: its content also comes by
// another way.
//
// The first byte of a message says how many hops its payload may still make; the payload
// follows.
type payloads struct {
	seed maphash.Seed

	mu      sync.Mutex
	waiting []payload       // oldest first
	heard   map[uint64]bool // hashes of received payloads; rememberHeard at most
	before  map[uint64]bool // the previous generation of heard
}

type payload struct {
	b     []byte
	left  int // copies
	since time.Time
}

func newPayloads() *payloads {
	return &payloads{seed: maphash.MakeSeed(), heard: map[uint64]bool{}, before: map[uint64]bool{}}
}

// copies returns how many copies of a payload each member sends: one member in
// e^copies misses it.
func copies(members int) int { return bits.Len(uint(members)) + 2 }

// add puts a payload in the queue, and says whether there was room.
func (p *payloads) add(hops byte, b []byte, members int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expire()
	if len(b) > maxPayload || len(p.waiting) >= maxWaiting {
		return false
	}
	p.waiting = append(p.waiting, payload{append([]byte{hops}, b...), copies(members), time.Now()})
	return true
}

// isNew notes a payload, and says whether it is new. A payload that came long ago
// seems new.
func (p *payloads) isNew(b []byte) bool {
	h := maphash.Bytes(p.seed, b)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.heard[h] || p.before[h] {
		return false
	}
	if len(p.heard) >= rememberHeard {
		p.heard, p.before = p.before, p.heard
		clear(p.heard)
	}
	p.heard[h] = true
	return true
}

// takePayloads returns the payloads that fit into a packet, newest first: older ones have
// gone out before.
func (p *payloads) takePayloads(overhead, limit int) (out [][]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expire()
	finished := false
	for i := len(p.waiting) - 1; i >= 0 && len(out) < maxInPacket; i-- {
		w := &p.waiting[i]
		if need := len(w.b) + overhead; need <= limit {
			limit -= need
			out = append(out, w.b)
			w.left--
			finished = finished || w.left == 0
		}
	}
	if finished {
		p.waiting = slices.DeleteFunc(p.waiting, func(w payload) bool { return w.left == 0 })
	}
	return out
}

// expire drops payloads that have waited for too long.
func (p *payloads) expire() {
	k := 0
	for k < len(p.waiting) && time.Since(p.waiting[k].since) > maxWait {
		k++
	}
	p.waiting = slices.Delete(p.waiting, 0, k)
}
