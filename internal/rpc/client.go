package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Errors of a call.
var (
	// ErrClosed: the connection ended before the answer came. Whether the
	// request was executed is not known.
	ErrClosed = errors.New("the connection is closed")
	// ErrNotSent: the connection had ended before the request was sent.
	ErrNotSent = errors.New("the connection is closed, and the request was not sent")
	// ErrFull: MaxCalls calls are in flight, or MaxQueued bytes wait. The
	// request was not sent.
	ErrFull = errors.New("too many calls in flight")
	// ErrNoAnswer: the answer did not come in time.
	ErrNoAnswer = errors.New("no answer in time")
)

// ClientConfig bounds a calling connection. Zero means the default.
type ClientConfig struct {
	MaxCalls     int           // in flight at once. Default 1,024
	MaxFrame     int           // bytes of an answer. Default 32 MiB
	MaxQueued    int           // bytes of requests that wait to be written, beyond which none is taken. Default 32 MiB
	WriteTimeout time.Duration // for a peer that takes no requests. Default 10 s
}

// Client makes calls over one connection. It is safe for concurrent use. Its
// goroutines end when the connection does.
type Client struct {
	cfg  ClientConfig
	done chan struct{} // closed when the reader has ended

	stream
	answers Answers   // of the reader
	calls   sync.Pool // of *Call

	background sync.WaitGroup // at most one writer, and the timer

	mu      sync.Mutex
	slots   []*slot // an id is a slot's index + 1 in its low 32 bits, a turn above
	free    []uint32
	queued  []byte
	spare   []byte
	writing bool
	timer   *time.Timer // calls expire
	due     time.Time   // when it fires; zero if it is not set
	err     error       // why the connection ended
}

// slot is a call's place. It is reused once an answer has come, also one that
// nobody waits for any more.
type slot struct {
	id     uint64
	turn   uint32
	caller Caller // nil once it has been told, or has given up
	until  time.Time
}

// Caller has begun a call and is told what has become of it.
type Caller interface {
	// Answered is called once: with the answer, whose bytes are lent until it
	// returns, or with the reason why there is none. Others wait for their
	// answers meanwhile, so it must not wait for another connection.
	Answered(a *Answers, frame []byte, err error)
}

// Call is a call that its caller waits for. It is reused: see Client.Release.
type Call struct {
	over  chan struct{}
	frame []byte // the answer, without its length
	err   error
}

// Answered lets Do return.
func (c *Call) Answered(_ *Answers, frame []byte, err error) {
	c.frame, c.err = append(c.frame[:0], frame...), err
	c.over <- struct{}{}
}

// Frame returns the answer. Its bytes are good until Release.
func (c *Call) Frame() []byte { return c.frame }

// Keep returns the answer and leaves it to the caller for good.
func (c *Call) Keep() []byte {
	f := c.frame
	c.frame = nil
	return f
}

// NewClient takes over a connection.
func NewClient(nc net.Conn, cfg ClientConfig) *Client {
	cfg.MaxCalls = cmp.Or(cfg.MaxCalls, 1024)
	cfg.MaxFrame = cmp.Or(cfg.MaxFrame, 32<<20)
	cfg.MaxQueued = cmp.Or(cfg.MaxQueued, 32<<20)
	cfg.WriteTimeout = cmp.Or(cfg.WriteTimeout, 10*time.Second)
	c := &Client{cfg: cfg, done: make(chan struct{})}
	c.init(nc, cfg.WriteTimeout)
	go c.readLoop() // owned by the client: ends with the connection; Close waits
	return c
}

// Close ends the connection and waits for its goroutines. Calls in flight fail
// with ErrClosed.
func (c *Client) Close() error {
	c.fail(ErrClosed)
	<-c.done
	c.background.Wait()
	return nil
}

// Done is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err returns why the connection ended, or nil.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// InFlight returns the number of calls that wait for their answer.
func (c *Client) InFlight() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inFlightLocked()
}

func (c *Client) inFlightLocked() int { return len(c.slots) - len(c.free) }

// fail ends the connection for a reason.
func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failLocked(err)
}

func (c *Client) failLocked(err error) {
	if c.err == nil {
		c.err = err
		// Wakes the reader, who closes the connection when it has left it.
		_ = c.nc.SetDeadline(time.Unix(1, 0))
		if !c.due.IsZero() && c.timer.Stop() {
			c.background.Done()
		}
	}
}

// Do sends a request, whose ID it sets, and waits for the answer until ctx ends
// or timeout is over. The caller gives the Call back with Release, also after
// an error. The request's bytes are the caller's again when Do returns.
func (c *Client) Do(ctx context.Context, timeout time.Duration, q *wire.Request) (*Call, error) {
	call, ok := c.calls.Get().(*Call)
	if !ok {
		call = &Call{over: make(chan struct{}, 1)}
	}
	if err := c.queue(q, timeout, call); err != nil {
		c.Release(call)
		return nil, err
	}
	c.flush()
	select {
	case <-call.over:
	case <-ctx.Done():
		if c.abandon(q.ID) {
			c.Release(call)
			return nil, context.Cause(ctx)
		}
		<-call.over // it came just now
	}
	return call, call.err
}

// Start makes a call that nobody waits for: caller is told what has become of it.
// The request, whose ID it sets, is sent with Flush. Its bytes are the caller's
// again when it returns; after an error caller is not told anything.
func (c *Client) Start(q *wire.Request, timeout time.Duration, caller Caller) error {
	return c.queue(q, timeout, caller)
}

// Flush sends what was started, as far as that goes without waiting.
func (c *Client) Flush() { c.flush() }

// Release gives a call back for reuse.
func (c *Client) Release(call *Call) {
	if call == nil {
		return
	}
	if cap(call.frame) > smallBuffer {
		call.frame = nil
	}
	c.calls.Put(call)
}

// queue takes a slot for a call and queues the request, whose ID it sets, for
// flush. The request's bytes are the caller's again when it returns. After an
// error caller is not told anything.
func (c *Client) queue(q *wire.Request, timeout time.Duration, caller Caller) error {
	until := time.Now().Add(timeout)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return fmt.Errorf("%w: %w", ErrNotSent, c.err)
	}
	if len(c.queued) > c.cfg.MaxQueued {
		return ErrFull
	}
	var at uint32
	switch n := len(c.free); {
	case n > 0:
		at = c.free[n-1]
		c.free = c.free[:n-1]
	case len(c.slots) < c.cfg.MaxCalls:
		at = uint32(len(c.slots))
		c.slots = append(c.slots, &slot{})
	default:
		return ErrFull
	}
	s := c.slots[at]
	s.turn++
	s.id = uint64(s.turn)<<32 | uint64(at+1)
	s.caller, s.until = caller, until
	q.ID = s.id
	c.queued = wire.AppendRequest(c.queued, q)
	if c.due.IsZero() || until.Before(c.due) {
		c.expireAtLocked(until, timeout)
	}
	return nil
}

// flush writes what is queued, unless somebody does already.
func (c *Client) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writing || len(c.queued) == 0 {
		return
	}
	c.writing = true
	if c.inFlightLocked() > 1 {
		// Others are at it: let them queue theirs into the same write.
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	c.writeQueued()
}

// One timer serves all calls: it is set for the first that expires, and mostly
// finds that one answered long ago, and none due. So a call costs no timer.

// expireAtLocked sets the timer.
func (c *Client) expireAtLocked(at time.Time, in time.Duration) {
	if c.due.IsZero() || !c.timer.Stop() {
		c.background.Add(1) // for expire; a connection that fails stops it
	}
	c.due = at
	if c.timer == nil {
		c.timer = time.AfterFunc(in, c.expire)
	} else {
		c.timer.Reset(in)
	}
}

// expire tells those whose time is over. Their slots wait for the answers.
func (c *Client) expire() {
	defer c.background.Done()
	var late []Caller
	now := time.Now()
	c.mu.Lock()
	if c.err != nil { // the reader tells them
		c.mu.Unlock()
		return
	}
	if c.timer.Stop() { // set anew just now
		c.background.Done()
	}
	c.due = time.Time{}
	var next time.Time
	for _, s := range c.slots {
		switch {
		case s.caller == nil:
		case !now.Before(s.until):
			late = append(late, s.caller)
			s.caller = nil
		case next.IsZero() || s.until.Before(next):
			next = s.until
		}
	}
	if !next.IsZero() {
		c.expireAtLocked(next, next.Sub(now))
	}
	c.mu.Unlock()
	var a Answers
	for _, caller := range late {
		caller.Answered(&a, nil, ErrNoAnswer)
	}
	a.Write()
}

// writeQueued writes what is queued, as far as that goes without waiting; the
// rest is left to a goroutine, so that no caller outstays its deadline. The
// lock is held at entry and exit, and released while it writes.
func (c *Client) writeQueued() {
	for len(c.queued) > 0 && c.err == nil {
		b := c.takeQueued()
		c.mu.Unlock()
		n, err := c.writeNow(b)
		c.mu.Lock()
		if err != nil {
			c.failLocked(fmt.Errorf("%w: %w", ErrClosed, err))
		}
		if c.err != nil {
			break
		}
		if n < len(b) {
			c.background.Go(func() { c.writeRest(b, n) }) // ends with the queue or the connection
			return
		}
		c.recycle(b)
	}
	c.writing = false
}

func (c *Client) takeQueued() []byte {
	b := c.queued
	c.queued, c.spare = c.spare[:0], nil
	return b
}

func (c *Client) recycle(b []byte) {
	if cap(b) <= 4*smallBuffer {
		c.spare = b
	}
}

// writeRest writes b from n on and then whatever is queued, waiting for the
// peer to take it.
func (c *Client) writeRest(b []byte, n int) {
	for {
		err := c.write(b[n:])
		c.mu.Lock()
		if err != nil {
			c.failLocked(fmt.Errorf("%w: %w", ErrClosed, err))
		}
		c.recycle(b)
		if c.err != nil || len(c.queued) == 0 {
			c.writing = false
			c.mu.Unlock()
			return
		}
		b, n = c.takeQueued(), 0
		c.mu.Unlock()
	}
}

// abandon gives up waiting. It says false if the caller is being told already.
func (c *Client) abandon(id uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.slots[uint32(id)-1]
	if s.id != id || s.caller == nil {
		return false
	}
	s.caller = nil
	return true
}

// readLoop reads answers until the connection ends, and fails what is left.
func (c *Client) readLoop() {
	defer close(c.done)
	err := c.readEach(c.deliverBuffered)
	_ = c.nc.Close()
	var left []Caller
	c.mu.Lock()
	c.failLocked(fmt.Errorf("%w: %w", ErrClosed, err))
	for _, s := range c.slots {
		if s.caller != nil {
			left = append(left, s.caller)
			s.caller = nil
		}
	}
	c.mu.Unlock()
	for _, caller := range left {
		caller.Answered(&c.answers, nil, c.err)
	}
	c.answers.Write()
}

// deliverBuffered delivers the whole answers in the buffer.
func (c *Client) deliverBuffered(int) error {
	for c.w-c.r >= wire.LengthSize {
		length := wire.FrameLength(c.buf[c.r:])
		if length == 0 || length > c.cfg.MaxFrame {
			return fmt.Errorf("%w: %d bytes", ErrFrame, length)
		}
		if c.w-c.r < wire.LengthSize+length {
			if wire.LengthSize+length > len(c.buf) {
				c.grow(wire.LengthSize + length)
			}
			break
		}
		frame := c.buf[c.r+wire.LengthSize : c.r+wire.LengthSize+length]
		if caller := c.callerOf(frame); caller != nil {
			caller.Answered(&c.answers, frame, nil)
		}
		c.r += wire.LengthSize + length
	}
	c.answers.Write()
	c.compact()
	c.release()
	return nil
}

// callerOf returns who waits for an answer, if anybody does, and frees the slot.
func (c *Client) callerOf(frame []byte) Caller {
	id, ok := wire.PeekID(frame)
	if !ok {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	at := uint32(id) - 1
	if int64(at) >= int64(len(c.slots)) {
		return nil
	}
	s := c.slots[at]
	if s.id != id {
		return nil
	}
	caller := s.caller
	s.id, s.caller = 0, nil
	c.free = append(c.free, at)
	return caller
}
