package rpc

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Handler serves one connection's requests. All its methods are called by the
// connection's reader, one at a time.
type Handler interface {
	// Batch is called when bytes have come in, before their frames are served,
	// and Served when the answers have been written.
	Batch()
	Served()
	// Serve answers frames, MaxServe of them at most, whose bytes are lent until
	// it returns, by appending whole frames to c.Out, or hands them on to c.Go.
	// It keeps c.Out below 64 KiB with Flush and Grow. An error ends the
	// connection, after what c.Out has been written.
	Serve(c *Conn, frames [][]byte) error
	// Oversized appends the answer to a frame of which only the beginning was
	// read, because it is longer than allowed. The connection is closed after it.
	Oversized(c *Conn, beginning []byte, length int, why error)
	// Gone is called once, when nothing more comes; requests may be under way.
	Gone()
	// Close is called once, when the connection has ended.
	Close(err error)
}

// MaxServe is how many frames a Handler is given at a time.
const MaxServe = 32

// Errors that end a connection.
var (
	ErrSlowReader = errors.New("the peer does not take its answers in time")
	ErrSlowFrame  = errors.New("the peer does not complete its frame")
	ErrFrame      = errors.New("the frame's length is out of bounds")
	ErrBusy       = errors.New("the memory for what is under way is in use")
	errClosing    = errors.New("shutting down")
	errKilled     = errors.New("this host has ended it")
)

// Conn is a serving connection.
type Conn struct {
	// Out is what the reader has to write: the handler appends answers while
	// Serve runs.
	Out []byte

	stream
	shared  *shared
	handler Handler
	closing atomic.Bool
	ushered bool        // a lobby's usher ends it, which has a pace for that
	most    int         // bytes of a request: see Admit
	outHeld int64       // of the budget, for large answers in Out
	outPool *outBuffer  // what Out stands in while it is short
	timed   bool        // a read deadline is set, for a frame that has begun
	due     time.Time   // which
	skip    int         // bytes of a frame for which there was no memory, and which are yet to come
	asked   *Client     // has calls of Start to send
	wanted  atomic.Bool // others want what the frame holds that has begun

	mu       sync.Mutex
	writing  bool       // somebody writes
	queue    queue      // answers, for whoever writes
	current  chunk      // that is being written
	byReader bool       // and the reader writes it
	pinned   bool       // the reader waits, with buffers for which it holds memory
	tasks    int        // requests that have begun and not ended
	changed  sync.Cond  // tasks or the queue shrank, or nobody writes any more
	err      error      // of a write; ends the connection
	over     func()     // tells those of While; nil for none
	longs    []longTask // that have not begun, in their order
	longRuns bool       // somebody runs them
	sentLong int64      // bytes of their answers so far

	blocked atomic.Int64 // since when answers wait that still do, UnixNano; zero is not at all
	answers atomic.Int64 // bytes that the account has for answers

	squeezed atomic.Bool // it was ended for what it held of them
	killed   atomic.Bool // by Kill
}

func newConn(nc net.Conn, s *shared, owner, process string) *Conn {
	c := &Conn{shared: s, most: s.limits.MaxFirst}
	c.changed.L = &c.mu
	c.init(nc, s.limits.WriteTimeout)
	c.account = s.limits.Budget.Open(owner, process, c)
	c.onWait, c.onBlock = c.waits, c.blocks
	return c
}

// Own says whose the connection is, once that is known. It is the reader's, before
// any request waits.
func (c *Conn) Own(owner, process string) { c.account.Move(owner, process) }

// NetConn returns the connection below.
func (c *Conn) NetConn() net.Conn { return c.nc }

// Admit lets requests be as long as the limits have it. It is the handler's, where
// the limits hold a first one shorter.
func (c *Conn) Admit() { c.most = c.shared.limits.MaxFrame }

// Kill ends the connection from any goroutine, without waiting for its reader.
// What was served and not yet written may be lost.
func (c *Conn) Kill() {
	c.killed.Store(true)
	_ = c.nc.SetDeadline(time.Unix(1, 0))
}

// serve is the reader's loop. It returns why the connection ended; nil is an
// end in order.
func (c *Conn) serve() error {
	err := c.loop()
	if errors.Is(err, io.EOF) || errors.Is(err, errClosing) || errors.Is(err, net.ErrClosed) {
		err = nil
	}
	c.handler.Gone()
	// What was accepted is answered: tasks end by their own deadlines.
	if e := c.drain(); err == nil {
		err = e
	}
	c.account.Close()
	return err
}

// loop reads and serves until the connection ends, and returns why.
func (c *Conn) loop() error {
	for {
		err := c.readEach(c.batch)
		switch {
		case c.closing.Load():
			return errClosing
		case c.writeError() != nil:
			return c.writeError()
		case c.squeezed.Load():
			return ErrSlowReader
		case c.killed.Load():
			return errKilled
		case isTimeout(err) && (c.wanted.Load() || !c.late()):
			if err = c.giveFrame(); err == nil {
				continue
			}
		case isTimeout(err):
			c.shared.slowFrames.Add(1)
			return ErrSlowFrame
		}
		return err
	}
}

// batch serves what n bytes have completed.
func (c *Conn) batch(n int) error {
	c.shared.batches.Add(1)
	c.shared.bytesIn.Add(int64(n))
	dropped := c.skip > 0
	if dropped && c.skipped() {
		return nil
	}
	if c.busy++; c.busy > busyBatches {
		c.shared.lookout.nudge()
	}
	c.handler.Batch()
	c.served = false
	c.acquireOut()
	served, partial, err := c.serveBuffered()
	if e := c.flush(); err == nil {
		err = e
	}
	c.releaseOut()
	c.handler.Served()
	if partial = partial || c.skip > 0; err == nil && (partial != c.timed || partial && (served > 0 || dropped)) {
		// A frame has begun: it must be complete in time.
		c.due = time.Time{}
		if partial {
			c.due = time.Now().Add(c.shared.limits.FrameTimeout)
		}
		err = c.nc.SetReadDeadline(c.due)
		c.timed = partial
	}
	if err == nil && c.wanted.Load() {
		err = c.giveFrame()
	}
	if err == nil {
		err = c.ending()
	}
	return err
}

// ending says why the connection is to end, if it is: the deadline that tells the
// reader may just have been overwritten.
func (c *Conn) ending() error {
	switch {
	case c.closing.Load():
		return errClosing
	case c.killed.Load():
		return errKilled
	}
	return nil
}

func (c *Conn) writeError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// serveBuffered serves the whole frames in the buffer and counts them. It says
// whether a further one has begun that is not complete.
func (c *Conn) serveBuffered() (served int, partial bool, err error) {
	for {
		frames, next, err := c.frames()
		if len(frames) > 0 {
			// Before they are served: a handler that fails ends the connection.
			c.r = next
			served += len(frames)
			if served >= busyFrames {
				c.shared.lookout.nudge()
			}
			err := c.handler.Serve(c, frames)
			c.ask()
			if c.turn.served() {
				c.shared.turns.Add(1)
				giveWay()
			}
			if err != nil {
				return served, false, err
			}
			if len(c.Out) >= smallBuffer/2 {
				if err := c.flush(); err != nil {
					return served, false, err
				}
			}
		}
		switch {
		case err != nil:
			return served, false, err
		case len(frames) > 0:
			continue // there may be more, or one that cannot be taken
		}
		c.compact()
		if c.w > 0 && c.w == len(c.buf) { // there is none where a frame was dropped
			err = c.makeRoom()
		}
		if partial = c.w > c.r; !partial {
			c.release()
		}
		return served, partial, err
	}
}

// frames finds the next whole frames in the buffer, and where what follows them
// begins.
func (c *Conn) frames() (frames [][]byte, next int, err error) {
	next = c.r
	frames = c.outPool.frames[:0]
	for len(frames) < MaxServe && next-c.r < partBytes && c.w-next >= wire.LengthSize {
		length := wire.FrameLength(c.buf[next:])
		if length == 0 || length > c.most {
			if len(frames) > 0 {
				return frames, next, nil // first those before it
			}
			return nil, next, c.refuse(length)
		}
		begin, end := next+wire.LengthSize, next+wire.LengthSize+length
		if end > c.w {
			break
		}
		frames = append(frames, c.buf[begin:end:end])
		next = end
	}
	return frames, next, nil
}

// refuse answers a frame whose length is out of bounds, and ends the connection.
func (c *Conn) refuse(length int) error {
	c.shared.badFrames.Add(1)
	why := fmt.Errorf("%w: %d bytes, 1 to %d are taken", ErrFrame, length, c.most)
	c.handler.Oversized(c, c.buf[c.r+wire.LengthSize:c.w], length, why)
	return why
}

// drain waits until all tasks are answered and everything is written, then
// lets the peer read it before the connection closes.
func (c *Conn) drain() error {
	c.mu.Lock()
	for c.tasks > 0 || c.writing {
		c.changed.Wait()
	}
	err := c.err
	if c.over != nil {
		c.over()
	}
	c.mu.Unlock()
	c.r, c.w = 0, 0
	c.stream.release()
	if !c.closing.Load() && !c.ushered {
		c.shared.leave.pass(c.shared.over)
	}
	// Closing with unread bytes may cost the peer the answers that it has not
	// yet read: say that nothing more comes, and let it go first.
	if cw, ok := c.nc.(interface{ CloseWrite() error }); ok && err == nil && c.closing.Load() {
		if cw.CloseWrite() == nil {
			_ = c.nc.SetReadDeadline(time.Now().Add(drainPeer))
			_, _ = io.Copy(io.Discard, c.nc)
		}
	}
	if e := c.nc.Close(); err == nil && !errors.Is(e, net.ErrClosed) {
		err = e
	}
	return err
}

// drainPeer is how long a closing connection waits for its peer to have read.
const drainPeer = 250 * time.Millisecond

// shutdown makes the reader stop after what it has read.
func (c *Conn) shutdown() {
	c.closing.Store(true)
	_ = c.nc.SetReadDeadline(time.Unix(1, 0))
}
