package server

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/sched"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// slicePartBytes bounds the requests of a part, after which the reader looks whether its time slice is over. A part
// has at least one request.
const slicePartBytes = 16 << 10

// A reader is busy in its third batch in a row, or in a batch of many requests.
const (
	busyBatches = 2
	busyFrames  = 8
)

// newConn returns a connection over nc. Its handler is yet to be set.
func newConn(nc net.Conn, s *shared, a *quota.Account) *Conn {
	c := &Conn{server: s, longest: s.limits.MaxFirstFrame, account: a}
	a.Serves(c)
	c.socket.Init(nc, s.limits.WriteTimeout, c.outbox.beforeWait)
	c.socket.BoundSend(c.account, s.limits.SendBuffer)
	c.input.Init(&c.socket, c.account, quota.ForFrames, c.beforeWait)
	c.input.Once = runtime.GOOS == "linux" && c.socket.HasDescriptor() // the poller tells of all that comes later
	c.outbox.init(&c.socket, c.account, &s.bytesOut, c.onFail)
	c.replies.server, c.replies.outbox = s, &c.outbox
	c.turn.account = c.account
	return c
}

// serve reads and serves until the connection ends. It returns why; nil means in order.
func (c *Conn) serve() (err error) {
	for goOn := true; goOn; {
		goOn, err = c.ends(c.input.ReadEach(c.serveBatch))
	}
	if errors.Is(err, io.EOF) || errors.Is(err, errClosing) || errors.Is(err, net.ErrClosed) {
		err = nil
	}
	c.handler.Gone()
	if c.socket.HungUp() { // what waits need not: no answer can come to the client
		c.outbox.fail(errGone)
	}
	// Accepted requests are answered: tasks end by their own deadlines.
	if e := c.drain(); err == nil && !errors.Is(e, errGone) {
		err = e
	}
	c.account.Close()
	return err
}

// ends says whether the reader goes on after err, and if not, why the connection ends.
func (c *Conn) ends(err error) (goOn bool, why error) {
	failed := c.outbox.failure()
	switch {
	case c.closing.Load():
		return false, errClosing
	case c.socket.Killed() && !c.overBudget.Load():
		return false, errKilled
	case failed != nil:
		return false, failed
	case c.overBudget.Load():
		return false, ErrSlowReader
	case transport.IsTimeout(err) && (c.frame.wanted.Load() || !c.frame.overdue()):
		err = c.giveFrame()
		return err == nil, err
	case transport.IsTimeout(err):
		c.server.slowFrames.Add(1)
		return false, ErrSlowFrame
	}
	return false, err
}

// serveBatch serves the frames that the last n bytes have completed.
func (c *Conn) serveBatch(n int) error {
	c.batches.Add(1)
	c.server.batches.Add(1)
	c.server.bytesIn.Add(int64(n))
	in := &c.input
	if in.Batches() == 1 {
		c.slice.Restart()
	}
	dropped := in.PassSkipped()
	if dropped && in.Len() == 0 {
		if in.Release(); in.Skips() {
			return nil // nothing to serve
		}
	}
	if in.Batches() > busyBatches {
		sched.WakePoller()
	}
	c.handler.Batch()
	c.beginBatch()
	served, begun, err := c.serveBuffered()
	if e := c.flush(); err == nil {
		err = e
	}
	c.endBatch()
	c.handler.Served()
	if err == nil {
		err = c.frame.setDeadline(c, begun || in.Skips(), served > 0 || dropped)
	}
	if err == nil && c.frame.wanted.Load() {
		err = c.giveFrame()
	}
	if err == nil {
		err = c.ending()
	}
	return err
}

// serveBuffered serves and counts the whole frames in the buffer. begun says whether
// another frame has begun that is not complete.
func (c *Conn) serveBuffered() (served int, begun bool, err error) {
	in := &c.input
	for {
		frames, n, bad := c.cut(c.batch.buffer.frames[:0])
		if bad {
			return served, false, c.refuse(c.beginning())
		}
		if len(frames) == 0 {
			break
		}
		// Before Serve: if the handler fails, the connection ends.
		in.Consume(n)
		if served += len(frames); served >= busyFrames {
			sched.WakePoller()
		}
		if err := c.serveFrames(frames); err != nil {
			return served, false, err
		}
	}
	if in.Compact() {
		err = c.growInput()
	}
	if begun = in.Len() > 0; !begun {
		in.Release()
	}
	return served, begun, err
}

// cut appends the next whole frames that have come to list, and returns how many bytes they take.
// bad says that the first one is bad.
func (c *Conn) cut(list [][]byte) (frames [][]byte, n int, bad bool) {
	if f := c.server.limits.Framing; f != nil {
		return c.cutByFraming(list, f)
	}
	b := c.input.Bytes()
	for len(list) < MaxFrames && n < slicePartBytes && len(b)-n >= wire.LengthSize {
		length := wire.FrameLength(b[n:])
		if length == 0 || length > c.longest {
			return list, n, len(list) == 0 // the frames before it are served first
		}
		begin, end := n+wire.LengthSize, n+wire.LengthSize+length
		if end > len(b) {
			break
		}
		list = append(list, b[begin:end:end])
		n = end
	}
	return list, n, false
}

// cutByFraming is cut for another framing than that of package wire.
func (c *Conn) cutByFraming(list [][]byte, f Framing) (frames [][]byte, n int, bad bool) {
	b := c.input.Bytes()
	for len(list) < MaxFrames && n < slicePartBytes && n < len(b) {
		cut := f.Cut(b[n:], c.frame.scanned, c.longest)
		if cut.Bad != nil {
			return list, n, len(list) == 0 // the frames before it are served first
		}
		if cut.Frame == nil {
			c.frame.scanned = cut.Scanned
			break
		}
		c.frame.scanned = 0
		list = append(list, slices.Clip(cut.Frame))
		n += cut.Size
		drop := min(cut.Drop, len(b)-n)
		n += drop
		c.input.Skip(cut.Drop - drop)
	}
	return list, n, false
}

// takeRest yields the processor at the end of a time slice, and waits for a turn to go on.
func (c *Conn) takeRest() {
	c.server.turns.Add(1)
	kind := cmp.Or(c.turn.kind, quota.LongTurn)
	c.turn.release()
	_ = c.takeTurn(kind) // without memory to wait it goes on without
	sched.Yield()
}

// Rest has the reader rest between the parts of a long request, as it does between requests, if its time slice is
// over. The handler calls it, and holds nothing meanwhile.
func (c *Conn) Rest() {
	if c.slice.Over() {
		c.takeRest()
	}
}

// serveFrames serves some frames, and yields the processor if it is time to.
func (c *Conn) serveFrames(frames [][]byte) error {
	err := c.handler.Serve(c, frames)
	c.sendCalls()
	c.Rest()
	if err == nil && (c.lost != nil || len(c.Out) >= transport.BufferSize/2) {
		err = c.flush()
	}
	return err
}

// refuse answers a bad frame, and ends the connection.
func (c *Conn) refuse(bad Cut) error {
	c.server.badFrames.Add(1)
	c.handler.Oversized(c, bad.Frame, bad.Need, bad.Bad)
	return bad.Bad
}

// onFail notes that the connection cannot be written to, and returns the error to keep. The outbox's lock is held.
func (c *Conn) onFail(err error) error {
	c.replies.cancelContext()
	switch {
	case transport.IsTimeout(err) && c.overBudget.Load():
		c.server.overBudget.Add(1)
		return fmt.Errorf("%w, and others need the memory of its answers", ErrSlowReader)
	case transport.IsTimeout(err):
		c.server.slowReaders.Add(1)
		return ErrSlowReader
	case errors.Is(err, quota.ErrBusy):
		c.server.overBudget.Add(1)
		return fmt.Errorf("%w, and %w", ErrSlowReader, err)
	}
	return err
}

// sweep tells the reader of the end of its stream, if it has served since the last time, and else
// makes the send buffer small.
func (c *Conn) sweep() {
	if n := c.batches.Load(); n != c.sweptBatches {
		if c.sweptBatches = n; c.socket.AtEnd() {
			c.input.ReadToEnd()
		}
		return
	}
	c.outbox.mu.Lock()
	defer c.outbox.mu.Unlock()
	if !c.outbox.writing {
		c.socket.ShrinkIdle()
	}
}

// drainPeer is how long a closing connection waits for its peer to read.
const drainPeer = 250 * time.Millisecond

// drain waits until all requests are answered and everything is written. Then it lets the
// peer read the answers before the connection closes.
func (c *Conn) drain() error {
	err := c.replies.waitForAll()
	c.input.Discard()
	c.socket.Linger(c.server.ended)
	c.outbox.mu.Lock()
	c.socket.EndSend()
	c.outbox.mu.Unlock()
	if !c.closing.Load() {
		c.server.departures.wait(c.server.over.Done())
	}
	// Closing with unread bytes may cost the peer answers that it has not read yet. So
	// end the stream, and let the peer close first.
	if err == nil && c.closing.Load() && c.socket.CloseWrite() {
		_ = c.socket.Conn.SetReadDeadline(time.Now().Add(drainPeer))
		_, _ = io.Copy(io.Discard, c.socket.Conn)
	}
	if e := c.socket.Conn.Close(); err == nil && !errors.Is(e, net.ErrClosed) {
		err = e
	}
	return err
}

// shutdown makes the reader stop: over a Unix socket at the end of what the peer has sent, so that the peer knows of
// each request whether it was served; else after the bytes that it has read.
func (c *Conn) shutdown() {
	c.socket.EndLinger()
	if c.socket.CloseRead() {
		c.input.ReadToEnd()
		return
	}
	c.closing.Store(true)
	c.socket.WakeReader()
}
