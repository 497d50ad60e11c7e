package gossip

import (
	"hash/maphash"
	"math/bits"
	"slices"
	"sync"
	"time"
)

// Bounds of datagrams. Datagrams use the room that membership leaves in its packets.
// So membership never waits for them, and sends no more packets: 1,400 bytes to 3
// nodes every gossipInterval, 84 kB/s.
const (
	maxDatagram   = 1024        // bytes of one; fits beside the longest cluster name
	maxWaiting    = 1024        // datagrams that wait to go out
	maxWait       = time.Second // later a waiting datagram is dropped
	maxInPacket   = 16          // limits the work of each node; memberlist's bound is 255
	maxHops       = 8           // of one that goes round
	rememberHeard = 4096        // at least this many of the latest are recognized
)

// datagrams are the datagrams that wait to go out, a few copies of each to random
// nodes. A node that gets a datagram for the first time passes it on in the same way,
// so it reaches nodes that its origin does not reach. If there is no room, a datagram
// is dropped: its content also comes by another way.
//
// The first byte says how many hops the datagram may still make; the sender's bytes
// follow.
type datagrams struct {
	seed maphash.Seed

	mu      sync.Mutex
	waiting []datagram      // oldest first
	heard   map[uint64]bool // hashes of received datagrams; rememberHeard at most
	before  map[uint64]bool // the previous generation of heard
	sent    int64
	dropped int64
}

type datagram struct {
	b     []byte
	left  int // copies
	since time.Time
}

func newDatagrams() *datagrams {
	return &datagrams{seed: maphash.MakeSeed(), heard: map[uint64]bool{}, before: map[uint64]bool{}}
}

// copies returns how many copies of a datagram each member sends: one member in
// e^copies misses it.
func copies(members int) int { return bits.Len(uint(members)) + 2 }

// add puts a datagram in the queue, and says whether there was room.
func (d *datagrams) add(hops byte, b []byte, members int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.expire()
	if len(b) > maxDatagram || len(d.waiting) >= maxWaiting {
		d.dropped++
		return false
	}
	d.waiting = append(d.waiting, datagram{append([]byte{hops}, b...), copies(members), time.Now()})
	return true
}

// first notes a datagram, and says whether it is new. A datagram that came long ago
// seems new.
func (d *datagrams) first(b []byte) bool {
	h := maphash.Bytes(d.seed, b)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.heard[h] || d.before[h] {
		return false
	}
	if len(d.heard) >= rememberHeard {
		d.heard, d.before = d.before, d.heard
		clear(d.heard)
	}
	d.heard[h] = true
	return true
}

// take returns the datagrams that fit into a packet, newest first: older ones have
// gone out before.
func (d *datagrams) take(overhead, limit int) (out [][]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.expire()
	finished := false
	for i := len(d.waiting) - 1; i >= 0 && len(out) < maxInPacket; i-- {
		w := &d.waiting[i]
		if need := len(w.b) + overhead; need <= limit {
			limit -= need
			out = append(out, w.b)
			w.left--
			d.sent++
			finished = finished || w.left == 0
		}
	}
	if finished {
		d.waiting = slices.DeleteFunc(d.waiting, func(w datagram) bool { return w.left == 0 })
	}
	return out
}

// expire drops datagrams that have waited for too long.
func (d *datagrams) expire() {
	k := 0
	for k < len(d.waiting) && time.Since(d.waiting[k].since) > maxWait {
		k++
	}
	d.waiting = slices.Delete(d.waiting, 0, k)
	d.dropped += int64(k)
}

func (d *datagrams) stats() (sent, dropped int64, waiting int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.expire()
	return d.sent, d.dropped, len(d.waiting)
}
