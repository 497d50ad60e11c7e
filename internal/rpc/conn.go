package rpc

import (
	"context"
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
	// read, because it is longer than allowed or there is no memory for it.
	// The connection is closed after it.
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
	ErrSlowReader = errors.New("the peer takes no answers")
	ErrSlowFrame  = errors.New("the peer does not complete its frame")
	ErrFrame      = errors.New("the frame's length is out of bounds")
	ErrBusy       = errors.New("the memory for large frames is in use")
	errClosing    = errors.New("shutting down")
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
	inHeld  int64      // of the in budget, for a large frame
	outHeld int64      // of the out budget, for large answers in Out
	outPool *outBuffer // what Out stands in while it is short
	timed   bool       // a read deadline is set, for a frame that has begun
	asked   *Client    // has calls of Start to send

	mu      sync.Mutex
	writing bool      // somebody writes
	queued  []byte    // answers of tasks, for whoever writes
	spare   []byte    // swapped with queued
	tasks   int       // requests that have begun and not ended
	changed sync.Cond // tasks or queued shrank
	err     error     // of a write; ends the connection
}

func newConn(nc net.Conn, s *shared) *Conn {
	c := &Conn{shared: s}
	c.changed.L = &c.mu
	c.init(nc, s.limits.WriteTimeout)
	return c
}

// NetConn returns the connection below.
func (c *Conn) NetConn() net.Conn { return c.nc }

// Kill ends the connection from any goroutine, without waiting for its reader.
// What was served and not yet written may be lost.
func (c *Conn) Kill() { _ = c.nc.SetDeadline(time.Unix(1, 0)) }

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
	return err
}

// loop reads and serves until the connection ends, and returns why.
func (c *Conn) loop() error {
	err := c.readEach(c.batch)
	switch {
	case c.closing.Load():
		return errClosing
	case c.writeError() != nil:
		return c.writeError()
	case isTimeout(err):
		c.shared.slowFrames.Add(1)
		return ErrSlowFrame
	}
	return err
}

// batch serves what n bytes have completed.
func (c *Conn) batch(n int) error {
	c.shared.batches.Add(1)
	c.shared.bytesIn.Add(int64(n))
	c.handler.Batch()
	c.served = false
	c.acquireOut()
	served, partial, err := c.serveBuffered()
	if e := c.flush(); err == nil {
		err = e
	}
	c.releaseOut()
	c.handler.Served()
	if err == nil && (partial != c.timed || partial && served > 0) {
		// A frame has begun: it must be complete in time.
		var deadline time.Time
		if partial {
			deadline = time.Now().Add(c.shared.limits.FrameTimeout)
		}
		err = c.nc.SetReadDeadline(deadline)
		c.timed = partial
	}
	if err == nil && c.closing.Load() { // also where shutdown's deadline was just overwritten
		err = errClosing
	}
	return err
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
			err := c.handler.Serve(c, frames)
			c.ask()
			if err != nil {
				return served, false, err
			}
			if len(c.Out) >= smallBuffer/2 {
				if err := c.flush(); err != nil {
					return served, false, err
				}
			}
			if c.inHeld > 0 && c.r == c.w {
				c.releaseIn()
			}
		}
		switch {
		case err != nil:
			return served, false, err
		case len(frames) > 0:
			continue // there may be more, or one that cannot be taken
		}
		partial = c.w > c.r
		c.compact()
		if !partial {
			c.release()
		}
		return served, partial, nil
	}
}

// frames finds the next whole frames in the buffer, and where what follows them
// begins. Where that is a frame that does not fit, it makes room for it.
func (c *Conn) frames() (frames [][]byte, next int, err error) {
	next = c.r
	frames = c.outPool.frames[:0]
	for len(frames) < MaxServe && c.w-next >= wire.LengthSize {
		length := wire.FrameLength(c.buf[next:])
		if length == 0 || length > c.shared.limits.MaxFrame {
			if len(frames) > 0 {
				return frames, next, nil // first those before it
			}
			return nil, next, c.refuse(length, fmt.Errorf("%w: %d bytes, 1 to %d are taken", ErrFrame, length, c.shared.limits.MaxFrame))
		}
		begin, end := next+wire.LengthSize, next+wire.LengthSize+length
		if end > c.w {
			if len(frames) == 0 && wire.LengthSize+length > len(c.buf) {
				if err := c.makeRoom(length); err != nil {
					return nil, next, c.refuse(length, err)
				}
				next = c.r
			}
			break
		}
		frames = append(frames, c.buf[begin:end:end])
		next = end
	}
	return frames, next, nil
}

// makeRoom takes a buffer for a long frame from the budget.
func (c *Conn) makeRoom(length int) error {
	c.releaseIn()
	// Twice what others may hold theirs for without completing their frame.
	ctx, cancel := context.WithTimeout(context.Background(), 2*c.shared.limits.FrameTimeout)
	defer cancel()
	n := int64(wire.LengthSize + length)
	if c.shared.in.sem.Acquire(ctx, n) != nil {
		return ErrBusy
	}
	c.inHeld = n
	c.shared.in.used.Add(n)
	c.grow(int(n))
	return nil
}

func (c *Conn) releaseIn() {
	if c.inHeld > 0 {
		c.shared.in.sem.Release(c.inHeld)
		c.shared.in.used.Add(-c.inHeld)
		c.inHeld = 0
	}
}

// refuse answers a frame that cannot be read and ends the connection.
func (c *Conn) refuse(length int, why error) error {
	c.shared.badFrames.Add(1)
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
	c.mu.Unlock()
	c.releaseIn()
	c.r, c.w = 0, 0
	c.stream.release()
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
