package rpc

import (
	"runtime"
	"sync"
)

// bulk has requests that move many bytes take turns. A request of 28 bytes may have megabytes
// copied; without turns a few connections with such requests would keep all processors busy, and
// every other request would wait for each of them. One of these requests runs at a time, for each
// four processors that Go uses. Owners take turns, and so do the processes of an owner.
type bulk struct {
	mu    sync.Mutex
	runs  int
	waits roundRobin[*Account, bulkWait] // by owner
}

type bulkWait struct {
	process *Account
	turn    chan struct{}
}

// BulkFrom is from how many bytes on a request waits for its turn. So many are copied within some
// dozens of microseconds.
const BulkFrom = 256 << 10

// try takes a turn if that is possible without waiting.
func (b *bulk) try() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tryLocked()
}

func (b *bulk) tryLocked() bool {
	if b.waits.len() > 0 || b.runs >= max(1, runtime.GOMAXPROCS(0)/4) {
		return false
	}
	b.runs++
	return true
}

// enter waits for a turn of a connection's account.
func (b *bulk) enter(a *Account) {
	b.mu.Lock()
	if b.tryLocked() {
		b.mu.Unlock()
		return
	}
	w := bulkWait{a.up, make(chan struct{})}
	b.waits.push(a.up.up, w)
	b.mu.Unlock()
	<-w.turn
}

// leave ends a turn, and begins that of another request.
func (b *bulk) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waits.len() == 0 {
		b.runs--
		return
	}
	w := b.waits.popFirst(func(w bulkWait) bool { return w.process != w.process.up.turn })
	w.process.up.turn = w.process
	close(w.turn)
}

// begin makes the reader of a connection wait for a turn. The turn ends when the answers are
// written, or when the request waits.
func (b *bulk) begin(c *Conn) error {
	if c.batch.bulk {
		return nil
	}
	if c.batch.bulk = b.try(); c.batch.bulk {
		return nil
	}
	c.sendCalls()
	o := &c.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.tryPinLocked(); err != nil {
		return err
	}
	defer o.unpinLocked()
	if !o.leaveLocked() {
		return o.err
	}
	o.mu.Unlock()
	b.enter(c.account)
	o.mu.Lock()
	c.batch.bulk = true
	return nil
}

// end ends the turn of a connection's reader, if it has one.
func (b *bulk) end(c *Conn) {
	if c.batch.bulk {
		b.leave()
		c.batch.bulk = false
	}
}

// Turn makes the reader of a connection wait for a turn to copy n bytes, if they are many, and
// charges them, until EndTurn. An error means that there is no memory.
func Turn(c *Conn, n int) error {
	if n >= BulkFrom {
		if err := c.account.budget.bulk.begin(c); err != nil {
			return err
		}
	}
	return c.Hold(n)
}

// EndTurn ends a turn to copy n bytes.
func EndTurn(c *Conn, n int) {
	c.Free(n)
	c.account.budget.bulk.end(c)
}
