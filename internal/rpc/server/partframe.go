package server

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/transport"
)

// partFrame is the frame of a request that has begun and is not complete. It is charged for memory as its bytes come:
// never more than twice the bytes that are there, or the 64 KiB that a read takes. If there is no memory for it, it
// is answered BUSY at once. The rest of it is read and dropped (Input.Skip), and the connection goes on.
type partFrame struct {
	scanned int         // of its bytes: see Cut.Scanned
	timed   bool        // a read deadline is set
	due     time.Time   // that deadline
	wanted  atomic.Bool // others want its memory; any goroutine's
}

// overdue says whether the time of the frame is over. Connections that want memory also
// wake the reader, possibly after it has already seen that they do.
func (f *partFrame) overdue() bool { return !f.due.IsZero() && !time.Now().Before(f.due) }

// setDeadline gives the frame that has begun a deadline of the reads, or removes it. begun says whether
// there is one, and isNew whether it is another one than after the last batch.
func (f *partFrame) setDeadline(c *Conn, begun, isNew bool) error {
	if begun == f.timed && !(begun && isNew) {
		return nil
	}
	f.timed, f.due = begun, time.Time{}
	if begun {
		f.due = time.Now().Add(c.server.limits.FrameTimeout)
	}
	if err := c.socket.Conn.SetReadDeadline(f.due); err != nil {
		return err
	}
	return c.outbox.failure() // whose deadline has just been overwritten
}

// beginning returns what the framing says of the request that has begun.
func (c *Conn) beginning() Cut {
	return c.server.framing.Cut(c.input.Bytes(), c.frame.scanned, c.longest)
}

// growInput replaces the full buffer by a larger one, for a frame that has begun in it.
func (c *Conn) growInput() error {
	begun, has := c.beginning(), c.input.Size()
	if begun.Need == 0 { // the framing does not know yet
		if has >= c.longest {
			begun.Frame, begun.Need = c.input.Bytes(), has
			begun.Bad = fmt.Errorf("%w: more than %d bytes, which are taken", ErrFrame, c.longest)
			return c.refuse(begun)
		}
		begun.Need = min(2*has, c.longest)
	}
	need := quota.SizeFor(begun.Need, has)
	if err := c.input.Charge(int64(need)); err != nil {
		return c.dropFrame(err)
	}
	c.input.Grow(need)
	return nil
}

// beforeWait is called before the reader waits with an incomplete frame.
func (c *Conn) beforeWait() error {
	if err := c.input.BeforeWait(); err != nil {
		return c.dropFrameBetween(err)
	}
	return nil
}

// dropFrameBetween is dropFrame between batches.
func (c *Conn) dropFrameBetween(why error) error {
	c.beginBatch()
	defer c.endBatch()
	err := c.dropFrame(why)
	if e := c.flush(); err == nil {
		err = e
	}
	return err
}

// dropFrame answers the frame that has begun with BUSY, and discards it. If its length is not known, or what an
// answer needs has not come, dropFrame returns an error, which ends the connection.
func (c *Conn) dropFrame(why error) error {
	c.server.dropped.Add(1)
	in := &c.input
	need := c.beginning().Need
	if need == 0 {
		return why
	}
	out, ok := c.server.framing.Busy(c.Out, in.Bytes(), why)
	if !ok {
		return why
	}
	c.Out = out
	c.frame.scanned = 0
	in.Skip(need - in.Len())
	in.Discard()
	return nil
}

// stuckAfter is how long answers may wait before others that need their memory may have
// the connection closed, even if the peer takes some of them. A connection whose peer
// takes all waiting answers within a second keeps their memory, however much that is.
const stuckAfter = time.Second

// GiveMemory is called by other connections: see quota.Budget.
func (c *Conn) GiveMemory() int64 {
	if n := c.input.Charged(); n > transport.AlwaysAccepted && c.frame.wanted.CompareAndSwap(false, true) {
		c.socket.WakeReader()
		return n
	}
	if since := c.outbox.blocked.Load(); since != 0 && time.Now().UnixNano()-since >= int64(stuckAfter) {
		n := c.outbox.share.Used() // before Kill: it may be given back before Kill returns
		c.overBudget.Store(true)
		c.Kill()
		return n
	}
	return 0
}

// giveFrame gives others the memory of the frame that has begun, if they want it.
func (c *Conn) giveFrame() error {
	for again := true; again; again = c.frame.wanted.Load() {
		if c.frame.wanted.Swap(false) {
			if err := c.releaseFrame(); err != nil {
				return err
			}
		}
		if err := c.socket.Conn.SetReadDeadline(c.frame.due); err != nil {
			return err
		}
	}
	if err := c.outbox.failure(); err != nil { // whose deadline has been overwritten
		return err
	}
	return c.ending()
}

// releaseFrame gives back the memory of the frame that has begun.
func (c *Conn) releaseFrame() error {
	in := &c.input
	switch {
	case in.Charged() <= transport.AlwaysAccepted || in.Len() == 0:
		return nil
	case in.Len() > transport.AlwaysAccepted:
		return c.dropFrameBetween(quota.ErrBusy)
	}
	return in.Shrink()
}

// ending returns why the connection must end, or nil. The deadline that tells the reader
// may just have been overwritten.
func (c *Conn) ending() error {
	switch {
	case c.closing.Load():
		return errClosing
	case c.socket.Killed():
		return errKilled
	}
	return nil
}
