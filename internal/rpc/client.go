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
// goroutine ends when the connection does.
type Client struct {
	cfg  ClientConfig
	done chan struct{} // closed when the reader has ended

	stream

	writers sync.WaitGroup // at most one
	timers  sync.Pool      // of *time.Timer

	mu      sync.Mutex
	calls   []*Call // by slot; an id is slot + 1 in its low 32 bits, a turn above
	free    []uint32
	queued  []byte
	spare   []byte
	writing bool
	err     error // why the connection ended
}

// Call is one call's place. It is reused: see Client.Release.
type Call struct {
	id     uint64
	turn   uint32
	slot   uint32
	waited bool // somebody waits for the answer
	ready  chan struct{}
	frame  []byte // the answer, without its length
	err    error
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

// Close ends the connection and waits for its goroutine. Calls in flight fail
// with ErrClosed.
func (c *Client) Close() error {
	c.fail(ErrClosed)
	<-c.done
	c.writers.Wait()
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
	return len(c.calls) - len(c.free)
}

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
	}
}

// Do sends a request, whose ID it sets, and waits for the answer until ctx ends
// or timeout is over. The caller gives the Call back with Release, also after
// an error. The request's bytes are the caller's again when Do returns.
func (c *Client) Do(ctx context.Context, timeout time.Duration, q *wire.Request) (*Call, error) {
	call, err := c.begin(q)
	if err != nil {
		return nil, err
	}
	if c.wait(call, ctx, timeout) {
		return call, call.err
	}
	if !c.abandon(call) { // the answer came just now
		<-call.ready
		return call, call.err
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return nil, ErrNoAnswer
}

// wait waits for an answer, and says whether it has come.
func (c *Client) wait(call *Call, ctx context.Context, timeout time.Duration) bool {
	select {
	case <-call.ready:
		return true
	default:
	}
	timer, ok := c.timers.Get().(*time.Timer)
	if ok {
		timer.Reset(timeout)
	} else {
		timer = time.NewTimer(timeout)
	}
	defer func() {
		timer.Stop()
		c.timers.Put(timer)
	}()
	select {
	case <-call.ready:
		return true
	case <-ctx.Done():
	case <-timer.C:
	}
	return false
}

// begin takes a slot and queues the request.
func (c *Client) begin(q *wire.Request) (*Call, error) {
	c.mu.Lock()
	if c.err != nil {
		err := c.err
		c.mu.Unlock()
		return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	if len(c.queued) > c.cfg.MaxQueued {
		c.mu.Unlock()
		return nil, ErrFull
	}
	var call *Call
	switch n := len(c.free); {
	case n > 0:
		call = c.calls[c.free[n-1]]
		c.free = c.free[:n-1]
	case len(c.calls) < c.cfg.MaxCalls:
		call = &Call{slot: uint32(len(c.calls)), ready: make(chan struct{}, 1)}
		c.calls = append(c.calls, call)
	default:
		c.mu.Unlock()
		return nil, ErrFull
	}
	call.turn++
	call.id = uint64(call.turn)<<32 | uint64(call.slot+1)
	call.waited, call.err = true, nil
	q.ID = call.id
	c.queued = wire.AppendRequest(c.queued, q)
	if c.writing {
		c.mu.Unlock()
		return call, nil
	}
	c.writing = true
	if len(c.calls)-len(c.free) > 1 {
		// Others are at it: let them queue theirs into the same write.
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	c.writeQueued()
	c.mu.Unlock()
	return call, nil
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
			break
		}
		if n < len(b) {
			c.writers.Go(func() { c.writeRest(b, n) }) // ends with the queue or the connection
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

// abandon gives up waiting. It says false if the answer is there already.
func (c *Client) abandon(call *Call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := call.waited
	call.waited = false
	return was
}

// Release gives a call back for reuse.
func (c *Client) Release(call *Call) {
	if call == nil {
		return
	}
	if cap(call.frame) > smallBuffer {
		call.frame = nil
	}
	c.mu.Lock()
	c.free = append(c.free, call.slot)
	c.mu.Unlock()
}

// readLoop reads answers until the connection ends, and fails what is left.
func (c *Client) readLoop() {
	defer close(c.done)
	err := c.readAnswers()
	_ = c.nc.Close()
	c.fail(fmt.Errorf("%w: %w", ErrClosed, err))
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, call := range c.calls {
		if call.waited {
			call.waited = false
			call.err = c.err
			call.ready <- struct{}{}
		}
	}
}

func (c *Client) readAnswers() error { return c.readEach(c.deliverBuffered) }

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
		c.deliver(c.buf[c.r+wire.LengthSize : c.r+wire.LengthSize+length])
		c.r += wire.LengthSize + length
	}
	c.compact()
	c.release()
	return nil
}

// deliver hands an answer to the call that waits for it. Answers to nobody
// (abandoned calls) are dropped.
func (c *Client) deliver(frame []byte) {
	id, ok := wire.PeekID(frame)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	slot := uint32(id) - 1
	if int64(slot) >= int64(len(c.calls)) {
		return
	}
	call := c.calls[slot]
	if call.id != id {
		return
	}
	if !call.waited {
		c.free = append(c.free, slot) // abandoned: nobody else will
		call.id = 0
		return
	}
	call.waited = false
	call.frame = append(call.frame[:0], frame...)
	call.ready <- struct{}{}
}
