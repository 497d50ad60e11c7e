package gossip

import (
	"math/bits"
	"sync"
)

// Bounds of datagrams. Membership has the first claim on every packet, and
// datagrams at most half of what it leaves: failure detection must never wait
// for them.
const (
	maxDatagram  = 1024    // bytes of one
	maxWaiting   = 1 << 20 // bytes of all that wait
	transmitMult = 3       // each goes out 3 × log2(members + 1) times
)

// datagrams are those that wait to be sent, some copies of each. Those sent
// least often go first; where there is no room, a new one is dropped, since
// what they carry comes by another way too.
type datagrams struct {
	mu      sync.Mutex
	waiting []datagram // by copies left, most first
	bytes   int
	sent    int64
	dropped int64
}

type datagram struct {
	b    []byte
	left int
}

func (d *datagrams) add(b []byte, members int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(b) > maxDatagram || d.bytes+len(b) > maxWaiting {
		d.dropped++
		return false
	}
	copies := transmitMult * bits.Len(uint(members))
	d.waiting = append(d.waiting, datagram{append([]byte(nil), b...), copies})
	d.bytes += len(b)
	return true
}

// take returns what fits into half of limit, newest first: what is older has
// gone out before.
func (d *datagrams) take(overhead, limit int) (out [][]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	room := limit / 2
	done := 0
	for i := len(d.waiting) - 1; i >= 0; i-- {
		w := &d.waiting[i]
		if need := len(w.b) + overhead; need <= room {
			room -= need
			out = append(out, w.b)
			d.sent++
			if w.left--; w.left == 0 {
				done++
			}
		}
	}
	if done > 0 {
		kept := d.waiting[:0]
		for _, w := range d.waiting {
			if w.left > 0 {
				kept = append(kept, w)
			} else {
				d.bytes -= len(w.b)
			}
		}
		clear(d.waiting[len(kept):])
		d.waiting = kept
	}
	return out
}

func (d *datagrams) stats() (sent, dropped int64, waiting int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sent, d.dropped, len(d.waiting)
}
