package gossip

import (
	"hash/maphash"
	"math/bits"
	"slices"
	"sync"
	"time"
)

// Bounds of datagrams. They ride in what membership has left of its packets, so
// that it never waits for them, and make those packets no more: 1,400 bytes to
// 3 nodes every gossipInterval, 84 kB/s.
const (
	maxDatagram   = 1024        // bytes of one; fits beside the longest cluster name
	maxWaiting    = 1024        // that wait to go out
	maxWait       = time.Second // what has not gone out by then is dropped
	maxInPacket   = 16          // many small ones would be work for all; memberlist's bound is 255
	maxHops       = 8           // of one that goes round
	rememberHeard = 4096        // so many of those that came last, at least, are known again
)

// datagrams are those that wait to go out, a few copies of each to nodes at
// random. Who gets one for the first time passes it on in the same way, hence
// it reaches nodes that its origin does not. Where there is no room one is
// dropped: what they carry comes by another way too.
//
// Its bytes are one that says how many hops it may still make, and those of the
// sender.
type datagrams struct {
	seed maphash.Seed

	mu      sync.Mutex
	waiting []datagram      // oldest first
	heard   map[uint64]bool // hashes of those that came; rememberHeard at most
	before  map[uint64]bool // those of the time before
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

// copies of a datagram that each of so many members sends: one in e^copies
// misses it.
func copies(members int) int { return bits.Len(uint(members)) + 2 }

// add puts a datagram in the queue.
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

// first notes a datagram, and says whether it is new. One that came long ago
// seems so.
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

// take returns what fits into a packet, newest first: what is older has gone
// out before.
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

// expire drops what has waited for too long.
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
