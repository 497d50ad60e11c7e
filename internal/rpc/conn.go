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

// Handler serves the requests of one connection. The connection's reader calls all
// methods, one at a time.
type Handler interface {
	// Batch is called when bytes have come in, before their frames are served. Served is
	// called when the answers have been written.
	Batch()
	Served()
	// Serve answers at most MaxServe frames: it appends whole frames to c.Out, or hands
	// requests on to c.Go. The bytes of frames are valid until it returns. It keeps c.Out
	// below 64 KiB with Flush and Grow. An error ends the connection after c.Out has been
	// written.
	Serve(c *Conn, frames [][]byte) error
	// Oversized appends the answer to a frame that is longer than allowed, of which only
	// the beginning was read. The connection is closed after it.
	Oversized(c *Conn, beginning []byte, length int, why error)
	// Gone is called once, when no more requests come. Requests may still be under way.
	Gone()
	// Close is called once, when the connection has ended.
	Close(err error)
}

// MaxServe is the greatest number of frames in one call of Handler.Serve.
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
	// Out is what the reader will write. The handler appends answers to it in Serve.
	Out []byte

	stream
	shared  *shared
	handler Handler
	closing atomic.Bool
	ushered bool        // a lobby's usher ends it, at the lobby's own pace
	most    int         // bytes of a request: see Admit
	outHeld int64       // bytes charged for large answers in Out
	outPool *outBuffer  // the array of Out while Out is short
	timed   bool        // a read deadline is set, for a frame that has begun
	due     time.Time   // that deadline
	skip    int         // bytes yet to come of a frame dropped for lack of memory
	asked   *Client     // has calls of Start to send
	wanted  atomic.Bool // others want the memory of the frame that has begun

	mu       sync.Mutex
	writing  bool       // some goroutine writes
	queue    queue      // answers, for the goroutine that writes
	current  chunk      // being written
	byReader bool       // the reader writes current
	pinned   bool       // the reader waits, and its buffers are charged
	tasks    int        // requests that have begun and not ended
	changed  sync.Cond  // tasks or the queue shrank, or the writer is done
	err      error      // of a write; ends the connection
	over     func()     // cancels the context of While; nil: none
	longs    []longTask // not begun, in their order
	longRuns bool       // runLong runs
	sentLong int64      // bytes of long answers so far

	// Since when the oldest answers wait, UnixNano; zero: none wait.
	blocked atomic.Int64
	answers atomic.Int64 // bytes charged to the account for answers

	// It was ended because others need the memory of its answers.
	squeezed atomic.Bool
	killed   atomic.Bool // ended by Kill
}

func newConn(nc net.Conn, s *shared, owner, process string) *Conn {
	c := &Conn{shared: s, most: s.limits.MaxFirst}
	c.changed.L = &c.mu
	c.init(nc, s.limits.WriteTimeout)
	c.account = s.limits.Budget.Open(owner, process, c)
	c.onWait, c.onBlock = c.waits, c.blocks
	return c
}

// Own moves the connection's account to its owner, once the owner is known. The reader
// calls it, before any request waits.
func (c *Conn) Own(owner, process string) { c.account.Move(owner, process) }

// NetConn returns the underlying connection.
func (c *Conn) NetConn() net.Conn { return c.nc }

// Admit raises the longest request from Limits.MaxFirst to Limits.MaxFrame. The handler
// calls it.
func (c *Conn) Admit() { c.most = c.shared.limits.MaxFrame }

// Kill ends the connection without waiting for its reader. Any goroutine may call it.
// Answers that are not yet written may be lost.
func (c *Conn) Kill() {
	c.killed.Store(true)
	_ = c.nc.SetDeadline(time.Unix(1, 0))
}

// serve is the reader's loop. It returns why the connection ended; nil means in order.
func (c *Conn) serve() error {
	err := c.loop()
	if errors.Is(err, io.EOF) || errors.Is(err, errClosing) || errors.Is(err, net.ErrClosed) {
		err = nil
	}
	c.handler.Gone()
	// Accepted requests are answered: tasks end by their own deadlines.
	if e := c.drain(); err == nil {
		err = e
	}
	c.account.Close()
	return err
}

// loop reads and serves until the connection ends, and returns the reason.
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

// batch serves the frames that the last n bytes have completed.
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

// ending returns why the connection must end, or nil. The deadline that tells the reader
// may just have been overwritten.
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

// serveBuffered serves and counts the whole frames in the buffer. partial says whether
// another frame has begun that is not complete.
func (c *Conn) serveBuffered() (served int, partial bool, err error) {
	for {
		frames, next, err := c.frames()
		if len(frames) > 0 {
			// Before Serve: if the handler fails, the connection ends.
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
			continue // there may be more, or a frame that is out of bounds
		}
		c.compact()
		if c.w > 0 && c.w == len(c.buf) { // c.w is zero if a frame was dropped
			err = c.makeRoom()
		}
		if partial = c.w > c.r; !partial {
			c.release()
		}
		return served, partial, err
	}
}

// frames returns the next whole frames in the buffer, and the offset behind them.
func (c *Conn) frames() (frames [][]byte, next int, err error) {
	next = c.r
	frames = c.outPool.frames[:0]
	for len(frames) < MaxServe && next-c.r < partBytes && c.w-next >= wire.LengthSize {
		length := wire.FrameLength(c.buf[next:])
		if length == 0 || length > c.most {
			if len(frames) > 0 {
				return frames, next, nil // serve the frames before it first
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

// drain waits until all tasks are answered and everything is written. Then it lets the
// peer read the answers before the connection closes.
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
	// Closing with unread bytes may cost the peer answers that it has not read yet. So
	// end the stream, and let the peer close first.
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

// drainPeer is how long a closing connection waits for its peer to read.
const drainPeer = 250 * time.Millisecond

// shutdown makes the reader stop after the bytes it has read.
func (c *Conn) shutdown() {
	c.closing.Store(true)
	_ = c.nc.SetReadDeadline(time.Unix(1, 0))
}
