package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Errors of a call.
var (
	// ErrClosed means that the connection ended before the answer came. The request may
	// have been executed or not.
	ErrClosed = errors.New("the connection is closed")
	// ErrNotSent means that the connection ended before the request was sent.
	ErrNotSent = errors.New("the connection is closed, and the request was not sent")
	// ErrFull means that MaxCalls calls are in flight, or MaxQueued bytes wait. The
	// request was not sent.
	ErrFull = errors.New("too many calls in flight")
	// ErrNoAnswer means that the answer did not come in time.
	ErrNoAnswer = errors.New("no answer in time")
)

// ErrNoRoom means that the answer was dropped because there was no memory for it.
var ErrNoRoom = errors.New("no memory for the answer")

// Errors that end a connection.
var (
	ErrFrame = errors.New("the frame's length is out of bounds")
	ErrNoID  = errors.New("the answer has no id")
)

// ClientConfig bounds a calling connection. Zero means the default.
type ClientConfig struct {
	MaxCalls int // in flight at once. Default 1,024
	MaxFrame int // bytes of an answer. Default 32 MiB
	// MaxQueued bounds the bytes of requests that wait. Beyond it, only a process that
	// has less than a fair part of them may add more. Default 32 MiB.
	MaxQueued int
	// WriteTimeout bounds a write that waits for the peer: if the peer takes no requests,
	// or takes some but no call waits for them any more. Default 10 s.
	WriteTimeout time.Duration

	// Direct lets a call that is alone on its connection read its answer itself. It is for
	// callers that wait for their calls (Do), over a Unix socket or TCP.
	Direct bool

	Budget *quota.Budget // charged for memory; nil: no bound
	Owner  string        // of the connection's account in Budget
}

// Client makes calls over one connection. It is safe for concurrent use. Its goroutines
// end when the connection does.
type Client struct {
	cfg    ClientConfig
	socket transport.Socket
	done   chan struct{} // closed when the reader has ended
	pool   sync.Pool     // of *Call

	// Of the reader.
	input   transport.Input
	answers transport.Answers

	background sync.WaitGroup // of the timer and the gatherers

	mu       sync.Mutex // guards the rest
	err      error      // ends the connection
	writing  bool       // some goroutine writes
	written  sync.Cond  // no goroutine writes any more
	calls    calls
	expiry   expiry
	requests requests
	deadline writeDeadline
	lead     leader
	gatherer writeGatherer

	told    func(frame []byte) // see Await; nil: nothing is awaited
	leaving atomic.Bool        // takes no more calls, see Leave; or is about to end

	account   *quota.Account // nil: no bound, or the connection has ended
	charged   int64          // bytes charged to the account for requests
	retiring  bool           // takes no more calls
	finishing bool           // ends when no call waits for an answer
}

// Caller has begun a call and is told the outcome.
type Caller interface {
	// Answered is called once: with the answer, or with the reason why there is none. The
	// bytes of frame are valid until it returns. Other callers wait for their answers
	// meanwhile, so Answered must not wait for another connection.
	Answered(a *transport.Answers, frame []byte, err error)
}

// charged is a Caller that calls for an account.
type charged interface {
	// Account returns the account whose share decides whether there is memory for the
	// request.
	Account() *quota.Account
}

// accountOf returns the account for which a Caller calls, or nil.
func accountOf(caller Caller) *quota.Account {
	if a, ok := caller.(charged); ok {
		return a.Account()
	}
	return nil
}

// NewClient takes over nc and returns a Client for it.
func NewClient(nc net.Conn, cfg ClientConfig) *Client {
	cfg.MaxCalls = cmp.Or(cfg.MaxCalls, 1024)
	cfg.MaxFrame = cmp.Or(cfg.MaxFrame, 32<<20)
	cfg.MaxQueued = cmp.Or(cfg.MaxQueued, 32<<20)
	cfg.WriteTimeout = cmp.Or(cfg.WriteTimeout, 10*time.Second)
	c := &Client{cfg: cfg, done: make(chan struct{}), lead: leader{wake: make(chan struct{}, 1)}}
	c.lead.c, c.lead.ownFn = c, c.lead.deliverOwn
	c.gatherer.c, c.gatherer.writeFn = c, c.gatherer.write
	if cfg.Budget != nil {
		c.account = cfg.Budget.Open(cfg.Owner, "")
	}
	c.socket.Init(nc, cfg.WriteTimeout, func() error { return c.deadline.beforeWait(cfg.WriteTimeout) })
	c.input.Init(&c.socket, c.account, quota.ForPeers, func() error {
		_ = c.input.BeforeWait() // not refused: clients are few
		return nil
	})
	c.written.L = &c.mu
	c.expiry.run, c.expiry.group = c.expire, &c.background
	go c.readLoop() // owned by the client: ends with the connection; Close waits
	return c
}

// Close ends the connection and waits for its goroutines. Calls in flight fail with
// ErrClosed.
func (c *Client) Close() error {
	c.fail(ErrClosed)
	<-c.done
	c.waitForWriter()
	c.background.Wait()
	return nil
}

// Conn returns the connection that the client has taken over.
func (c *Client) Conn() net.Conn { return c.socket.Conn }

// Done returns a channel that is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// alive reports whether the connection takes calls, as far as is known.
func (c *Client) alive() bool { return !c.leaving.Load() }

func (c *Client) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

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
	return c.calls.inFlight()
}

// fail ends the connection with a reason.
func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failLocked(err)
}

// failLocked is fail, with the lock held. The reader tells the callers.
func (c *Client) failLocked(err error) {
	if c.err != nil {
		return
	}
	c.leaving.Store(true) // a caller that is told makes its next call over another connection
	c.expiry.stop()
	c.lead.wakeReader()
	if !errors.Is(err, ErrClosed) && !errors.Is(err, ErrNotSent) { // a write has failed
		err = fmt.Errorf("%w: %w", ErrClosed, err)
	}
	c.err = err
	c.socket.Wake() // the reader and the writer; Close would wait for the reader
}

// Do sends the request q, whose ID it sets, and waits for the answer until ctx ends or
// timeout has passed. The caller passes the Call to Release, also after an error. The
// bytes of q belong to the caller again when Do returns.
func (c *Client) Do(ctx context.Context, timeout time.Duration, q *wire.Request) (*Call, error) {
	call, ok := c.pool.Get().(*Call)
	if !ok {
		call = &Call{over: make(chan struct{}, rooms)}
	}
	call.account = quota.AccountOf(ctx)
	leads, err := c.send(q, timeout, call)
	if err == nil && leads {
		err = c.lead.readFor(ctx, call, q.ID)
	} else if err == nil {
		err = c.await(ctx, call, q.ID)
	}
	if err != nil {
		c.Release(call)
		return nil, err
	}
	return call, call.err
}

// send queues and writes a request. leads says that the caller is to read the answer.
func (c *Client) send(q *wire.Request, timeout time.Duration, call *Call) (leads bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.queueLocked(q, timeout, call); err != nil {
		return false, err
	}
	leads = c.lead.takeLocked(call)
	c.flushLocked()
	return leads, nil
}

// await waits for the answer, which another goroutine reads, or makes this one read. After
// an error the call is abandoned.
func (c *Client) await(ctx context.Context, call *Call, id uint64) error {
	done := ctx.Done()
	if done == nil { // a plain receive costs half as much
		<-call.over
	} else {
		select {
		case <-call.over:
		case <-done:
			if c.abandon(id) {
				if c.lead.told(call) { // just now
					<-call.over
					c.lead.leave(nil)
				}
				return context.Cause(ctx)
			}
			<-call.over // it came just now
		}
	}
	if c.lead.told(call) {
		return c.lead.readFor(ctx, call, id)
	}
	return nil
}

// Release gives a call back for reuse. A nil call is fine.
func (c *Client) Release(call *Call) {
	if call == nil {
		return
	}
	if cap(call.frame) > transport.BufferSize {
		call.frame = nil
	}
	clear(call.items) // they name what is in the frame
	call.giveBack()
	c.pool.Put(call)
}

// abandon gives up waiting. It returns false if the caller is already being told.
func (c *Client) abandon(id uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.calls.find(id)
	if s == nil || s.caller == nil {
		return false
	}
	s.caller = nil
	c.finishLocked()
	return true
}

// expire tells the callers of expired calls. Their slots stay taken until the answers
// come, except for a long request that is not sent yet: expire drops it.
func (c *Client) expire() {
	defer c.background.Done()
	now := time.Now()
	c.mu.Lock()
	if c.err != nil { // the reader tells the callers
		c.mu.Unlock()
		return
	}
	c.expiry.stop() // set again just now
	expired, next := c.calls.giveUp(now)
	if !next.IsZero() {
		c.expiry.expireBy(next, next.Sub(now))
	}
	c.requests.removeExpired(now, func(id uint64) {
		if s := c.calls.find(id); s != nil {
			c.calls.endCall(s)
		}
	})
	_ = c.chargeLocked(0, nil) // it charges nothing new
	c.finishLocked()
	led := c.lead.call.Load()
	c.mu.Unlock()
	var a transport.Answers
	for _, caller := range expired {
		caller.Answered(&a, nil, ErrNoAnswer)
	}
	a.Write()
	if led != nil && len(led.over) > 0 {
		c.socket.WakeReader()
	}
}

// Call is a call whose caller waits for the answer. Calls are reused: see Client.Release.
type Call struct {
	over    chan struct{}
	frame   []byte       // the answer, without its length
	items   []wire.Reply // of the answer, see Decode
	err     error
	account *quota.Account // of the client for which the call is made; may be nil
	held    int64          // bytes charged to account for the answer
}

// Answered makes Do return.
func (call *Call) Answered(_ *transport.Answers, frame []byte, err error) {
	if n := int64(len(frame)); err == nil && n > transport.BufferSize {
		if err = call.account.Take(quota.ForPeers, n); err == nil {
			call.held = n
		} else {
			frame, err = nil, fmt.Errorf("%w: %w", ErrNoRoom, err)
		}
	}
	call.frame, call.err = append(call.frame[:0], frame...), err
	call.over <- struct{}{}
}

// Account returns the account for which the call is made; it may be nil.
func (call *Call) Account() *quota.Account { return call.account }

// Frame returns the answer. Its bytes are valid until Release.
func (call *Call) Frame() []byte { return call.frame }

// Decode decodes the answer to q into r, which is valid until Release: the next call's items
// come into the same array.
func (call *Call) Decode(q *wire.Request, r *wire.Reply) error {
	r.Items, call.items = call.items[:0], nil
	err := wire.DecodeAnswer(q, call.frame, r)
	if err == nil {
		call.items = r.Items
	}
	return err
}

// Keep returns the answer. Its bytes belong to the caller from then on.
func (call *Call) Keep() []byte {
	f := call.frame
	call.frame = nil
	call.giveBack()
	return f
}

func (call *Call) giveBack() {
	call.account.Give(quota.ForPeers, call.held)
	call.account, call.held = nil, 0
}
