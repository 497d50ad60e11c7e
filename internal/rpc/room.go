package rpc

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// A frame is charged for memory as its bytes come: never more than twice the bytes that
// are there, or the 64 KiB that a read takes. If there is no memory for a frame, it is
// answered BUSY at once. The rest of it is read and dropped, and the connection goes on.

// makeRoom replaces the full buffer by a larger one, for a frame that has begun in it.
func (c *Conn) makeRoom() error {
	need := roomFor(wire.LengthSize+wire.FrameLength(c.buf), len(c.buf))
	if err := c.hold(int64(need)); err != nil {
		return c.drop(err)
	}
	c.grow(need)
	return nil
}

// page is what the allocator rounds large sizes up to, in bytes.
const page = 8 << 10

// waits is called before the reader waits with an incomplete frame.
func (c *Conn) waits() error {
	if err := c.stream.waits(); err != nil {
		return c.dropNow(err)
	}
	return nil
}

// dropNow is drop outside of a batch.
func (c *Conn) dropNow(why error) error {
	c.acquireOut()
	defer c.releaseOut()
	err := c.drop(why)
	if e := c.flush(); err == nil {
		err = e
	}
	return err
}

// drop answers the frame that has begun with BUSY, and discards it. If the id of the
// frame has not come, drop returns an error, which ends the connection: an answer needs
// the id.
func (c *Conn) drop(why error) error {
	c.shared.dropped.Add(1)
	if c.w-c.r < wire.LengthSize {
		return why
	}
	id, ok := wire.PeekID(c.buf[c.r+wire.LengthSize : c.w])
	if !ok {
		return why
	}
	length := wire.FrameLength(c.buf[c.r:])
	c.skip = wire.LengthSize + length - (c.w - c.r)
	c.r, c.w = 0, 0
	c.release()
	c.Out = wire.AppendError(c.Out, id, wire.Errorf(wire.Busy, "a request of %d bytes: %v", length, why))
	return nil
}

// skipped drops the bytes that have come of a frame without memory. It says whether more
// of that frame is yet to come, so that there is nothing to serve.
func (c *Conn) skipped() bool {
	n := min(c.skip, c.w-c.r)
	c.skip -= n
	if c.r += n; c.r < c.w {
		return false
	}
	c.release()
	return c.skip > 0
}

// stuckAfter is how long answers may wait before others that need their memory may have
// the connection closed, even if the peer takes some of them. A connection whose peer
// takes all waiting answers within a second keeps their memory, however much that is.
const stuckAfter = time.Second

// give is called by other connections: see Budget.
func (c *Conn) give() int64 {
	if n := c.held.Load(); n > fewBytes && c.wanted.CompareAndSwap(false, true) {
		_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // wakes the reader
		return n
	}
	if since := c.blocked.Load(); since != 0 && time.Now().UnixNano()-since >= int64(stuckAfter) {
		n := c.answers.Load() // before Kill: it may be given back before Kill returns
		c.squeezed.Store(true)
		c.Kill()
		return n
	}
	return 0
}

// giveFrame gives others the memory of the frame that has begun, if there is one.
func (c *Conn) giveFrame() error {
	for again := true; again; again = c.wanted.Load() {
		c.wanted.Store(false)
		if err := c.letGo(); err != nil {
			return err
		}
		if err := c.nc.SetReadDeadline(c.due); err != nil {
			return err
		}
	}
	return c.ending()
}

// letGo gives back the memory of the frame that has begun.
func (c *Conn) letGo() error {
	switch {
	case c.held.Load() <= fewBytes || c.w == c.r:
		return nil
	case c.w-c.r > fewBytes:
		return c.dropNow(ErrBusy)
	}
	return c.putAside()
}

// late says whether the time of the frame that has begun is over. Connections that want
// memory also wake the reader, possibly after it has already seen that they do.
func (c *Conn) late() bool { return !c.due.IsZero() && !time.Now().Before(c.due) }

// Hold charges n bytes for a request that waits, until Free. An error means that there is
// no memory.
func (c *Conn) Hold(n int) error { return c.account.Take(ForRequests, int64(n)) }

// Free gives back n bytes of Hold.
func (c *Conn) Free(n int) { c.account.Give(ForRequests, int64(n)) }

// Account returns the account of the connection.
func (c *Conn) Account() *Account { return c.account }
