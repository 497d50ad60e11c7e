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

	Budget *Budget // charged for memory; nil: no bound
	Owner  string  // of the connection's account in Budget
}

// Client makes calls over one connection. It is safe for concurrent use. Its goroutines
// end when the connection does.
type Client struct {
	cfg  ClientConfig
	done chan struct{} // closed when the reader has ended

	stream
	answers Answers   // of the reader
	skip    int       // bytes yet to come of an answer that is dropped
	calls   sync.Pool // of *Call

	background sync.WaitGroup // at most one writer, and the timer
	sending    patience       // with the requests that are being written

	mu      sync.Mutex
	slots   []*slot // an id is a slot's index + 1 in its low 32 bits, a turn above
	free    []uint32
	waiting requests
	asked   int64 // bytes charged to the account for requests
	writing bool
	timer   *time.Timer // calls expire
	due     time.Time   // when the timer fires; zero: it is not set
	err     error       // why the connection ended

	retiring  bool // takes no more calls
	finishing bool // ends when no call waits for an answer
}

// slot is the place of a call. It is reused once the answer has come, even if its caller
// has given up.
type slot struct {
	id     uint64
	turn   uint32
	caller Caller // nil once the caller has been told, or has given up
	until  time.Time
}

// Caller has begun a call and is told the outcome.
type Caller interface {
	// Answered is called once: with the answer, or with the reason why there is none. The
	// bytes of frame are valid until it returns. Other callers wait for their answers
	// meanwhile, so Answered must not wait for another connection.
	Answered(a *Answers, frame []byte, err error)
}

// chooser is a Caller that may not need a long answer any more.
type chooser interface {
	// Wants returns nil if the caller accepts an answer of n bytes. If Wants returns an
	// error, the caller is told ErrNoRoom next.
	Wants(n int) error
}

// asking is a Caller that calls for an account.
type asking interface {
	// Account returns the account whose share decides whether there is memory for the
	// request.
	Account() *Account
}

// askerOf returns the account for which a Caller calls, or nil.
func askerOf(caller Caller) *Account {
	if a, ok := caller.(asking); ok {
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
	c := &Client{cfg: cfg, done: make(chan struct{})}
	c.init(nc, cfg.WriteTimeout)
	c.use, c.onBlock = ForPeers, func() error { return c.sending.blocks(cfg.WriteTimeout) }
	c.onWait = func() error { _ = c.waits(); return nil } // not refused: clients are few
	if cfg.Budget != nil {
		c.account = cfg.Budget.Open(cfg.Owner, "", nil)
	}
	go c.readLoop() // owned by the client: ends with the connection; Close waits
	return c
}

// Close ends the connection and waits for its goroutines. Calls in flight fail with
// ErrClosed.
func (c *Client) Close() error {
	c.fail(ErrClosed)
	<-c.done
	c.background.Wait()
	return nil
}

// Conn returns the connection that the client has taken over.
func (c *Client) Conn() net.Conn { return c.nc }

// Done returns a channel that is closed when the connection has ended.
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

// fail ends the connection with a reason.
func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failLocked(err)
}

func (c *Client) failLocked(err error) {
	if c.err == nil {
		c.err = err
		// Wakes the reader, which then closes the connection.
		_ = c.nc.SetDeadline(time.Unix(1, 0))
		if !c.due.IsZero() && c.timer.Stop() {
			c.background.Done()
		}
	}
}

// Do sends the request q, whose ID it sets, and waits for the answer until ctx ends or
// timeout has passed. The caller passes the Call to Release, also after an error. The
// bytes of q belong to the caller again when Do returns.
func (c *Client) Do(ctx context.Context, timeout time.Duration, q *wire.Request) (*Call, error) {
	call, ok := c.calls.Get().(*Call)
	if !ok {
		call = &Call{over: make(chan struct{}, 1)}
	}
	call.asker, _ = ctx.Value(accountKey{}).(*Account)
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

// Start makes a call without waiting for the answer: caller is told the outcome. Flush
// sends the request q, whose ID Start sets. The bytes of q belong to the caller again
// when Start returns. After an error caller is not told anything.
func (c *Client) Start(q *wire.Request, timeout time.Duration, caller Caller) error {
	return c.queue(q, timeout, caller)
}

// Flush sends the started calls, as far as that is possible without waiting.
func (c *Client) Flush() { c.flush() }

// Release gives a call back for reuse. A nil call is fine.
func (c *Client) Release(call *Call) {
	if call == nil {
		return
	}
	if cap(call.frame) > smallBuffer {
		call.frame = nil
	}
	call.giveBack()
	c.calls.Put(call)
}

// queue takes a slot for a call and queues the request, whose ID it sets, for flush. The
// bytes of q belong to the caller again when it returns. After an error caller is not
// told anything.
func (c *Client) queue(q *wire.Request, timeout time.Duration, caller Caller) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queueLocked(q, timeout, caller)
}

func (c *Client) queueLocked(q *wire.Request, timeout time.Duration, caller Caller) error {
	if err := c.goneLocked(); err != nil {
		return err
	}
	asker := askerOf(caller)
	if c.waiting.full(c.cfg.MaxQueued, asker.process()) || len(c.free) == 0 && len(c.slots) >= c.cfg.MaxCalls {
		return ErrFull
	}
	if err := c.accountLocked(valueSize(q), asker); err != nil {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	c.waiting.add(q, asker.process(), c.placeLocked(q, timeout, caller))
	return nil
}

// goneLocked returns why no more calls are taken, or nil.
func (c *Client) goneLocked() error {
	switch {
	case c.err != nil:
		return fmt.Errorf("%w: %w", ErrNotSent, c.err)
	case c.retiring:
		return fmt.Errorf("%w: %w", ErrNotSent, ErrRetiring)
	}
	return nil
}

// placeLocked gives a call a slot, whatever the bounds, and returns when the call
// expires.
func (c *Client) placeLocked(q *wire.Request, timeout time.Duration, caller Caller) (until time.Time) {
	until = time.Now().Add(timeout)
	at := uint32(len(c.slots))
	if n := len(c.free); n > 0 {
		at = c.free[n-1]
		c.free = c.free[:n-1]
	} else {
		c.slots = append(c.slots, &slot{})
	}
	s := c.slots[at]
	s.turn++
	s.id = uint64(s.turn)<<32 | uint64(at+1)
	s.caller, s.until = caller, until
	q.ID = s.id
	if c.due.IsZero() || until.Before(c.due) {
		c.expireAtLocked(until, timeout)
	}
	return until
}

// freeQueue is how many bytes of requests may wait without being charged.
const freeQueue = 4 * smallBuffer

// accountLocked charges the requests that wait to be sent, and n more bytes for asker. A
// nil asker is this host itself. Its requests are not refused for what others have queued
// there, unless they are long.
func (c *Client) accountLocked(n int, asker *Account) error {
	has := c.waiting.held(n)
	if has <= freeQueue {
		has = 0
	}
	var err error
	switch more := has - c.asked; {
	case more <= 0 || asker == nil && n < longRequest:
		c.account.Force(ForRequests, more)
	case asker == nil:
		err = c.account.Take(ForRequests, more)
	default:
		err = c.account.takeFor(asker, &c.waiting, ForRequests, more)
	}
	if err == nil {
		c.asked = has
	}
	return err
}

// flush writes the queue, unless another goroutine writes already.
func (c *Client) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writing || c.waiting.empty() {
		return
	}
	c.writing = true
	if c.inFlightLocked() > 1 {
		// Other calls are in flight: let their callers join this write.
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	c.writeQueued()
}

// One timer serves all calls. It is set for the call that expires first. When it fires,
// that call has usually been answered long ago and none is due. So a call costs no timer.

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

// expire tells the callers of expired calls. Their slots stay taken until the answers
// come, except for a long request that is not sent yet: expire drops it.
func (c *Client) expire() {
	defer c.background.Done()
	var late []Caller
	now := time.Now()
	c.mu.Lock()
	if c.err != nil { // the reader tells the callers
		c.mu.Unlock()
		return
	}
	if c.timer.Stop() { // set again just now
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
	c.waiting.leaveOut(now, c.freeLocked)
	_ = c.accountLocked(0, nil) // it charges nothing new
	c.finishedLocked()
	c.mu.Unlock()
	var a Answers
	for _, caller := range late {
		caller.Answered(&a, nil, ErrNoAnswer)
	}
	a.Write()
}

// writeQueued writes the queue, as far as that is possible without waiting. A goroutine
// writes the rest, so that no caller is kept past its deadline. The lock is held at entry
// and exit, and released while it writes.
func (c *Client) writeQueued() {
	for !c.waiting.empty() && c.err == nil {
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
		if n < len(b) || c.behind() {
			// Ends with the queue or the connection.
			c.background.Go(func() { c.writeRest(b, n) })
			return
		}
		c.recycle(b)
	}
	c.writing = false
}

func (c *Client) takeQueued() []byte {
	b, last := c.waiting.next()
	c.sending.begin(last)
	return b
}

// recycle takes back the buffer that takeQueued has returned. The lock is held.
func (c *Client) recycle(b []byte) {
	c.waiting.written(b)
	if c.asked > 0 {
		_ = c.accountLocked(0, nil) // it charges nothing new
	}
}

// writeRest writes b from n on and then the queue, and waits for the peer to take it.
func (c *Client) writeRest(b []byte, n int) {
	for {
		err := c.write(b[n:])
		c.mu.Lock()
		if err != nil {
			c.failLocked(fmt.Errorf("%w: %w", ErrClosed, err))
		}
		c.recycle(b)
		if c.err != nil || c.waiting.empty() {
			c.writing = false
			c.mu.Unlock()
			return
		}
		b, n = c.takeQueued(), 0
		c.mu.Unlock()
	}
}

// abandon gives up waiting. It returns false if the caller is already being told.
func (c *Client) abandon(id uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.slots[uint32(id)-1]
	if s.id != id || s.caller == nil {
		return false
	}
	s.caller = nil
	c.finishedLocked()
	return true
}

// readLoop reads answers until the connection ends. Then it fails the calls that are
// left.
func (c *Client) readLoop() {
	defer close(c.done)
	err := c.readEach(c.deliverBuffered)
	// Before a write fails with a less useful error.
	c.fail(fmt.Errorf("%w: %w", ErrClosed, err))
	_ = c.nc.Close()
	var left []Caller
	c.mu.Lock()
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
	c.r, c.w = 0, 0
	c.release()
	c.mu.Lock()
	c.waiting = requests{}
	c.account.Give(ForRequests, c.asked)
	c.asked = 0
	c.account.Close()
	c.account = nil
	c.mu.Unlock()
}

// deliverBuffered delivers the whole answers in the buffer.
func (c *Client) deliverBuffered(int) error {
	n := min(c.skip, c.w-c.r)
	c.skip -= n
	c.r += n
	for c.w-c.r >= wire.LengthSize {
		length := wire.FrameLength(c.buf[c.r:])
		if length == 0 || length > c.cfg.MaxFrame {
			return fmt.Errorf("%w: %d bytes", ErrFrame, length)
		}
		if c.w-c.r < wire.LengthSize+length {
			break
		}
		frame := c.buf[c.r+wire.LengthSize : c.r+wire.LengthSize+length]
		if caller := c.waitsFor(frame, true); caller != nil {
			caller.Answered(&c.answers, frame, nil)
		}
		c.r += wire.LengthSize + length
	}
	c.compact()
	if c.w == len(c.buf) {
		c.makeRoom()
	}
	c.answers.Write()
	c.release()
	return nil
}

// makeRoom replaces the full buffer by a larger one, for an answer that has begun in it.
// If there is no memory, or the caller does not want the answer, the answer is dropped
// and its caller is told.
func (c *Client) makeRoom() {
	need := wire.LengthSize + wire.FrameLength(c.buf)
	n := roomFor(need, len(c.buf))
	var err error
	if w, ok := c.waitsFor(c.buf[wire.LengthSize:], false).(chooser); ok {
		err = w.Wants(need)
	}
	if err == nil {
		err = c.hold(int64(n))
	}
	if err == nil {
		c.grow(n)
		return
	}
	c.skip = need - c.w
	if caller := c.waitsFor(c.buf[wire.LengthSize:], true); caller != nil {
		caller.Answered(&c.answers, nil, fmt.Errorf("%w: %w", ErrNoRoom, err))
	}
	c.r, c.w = 0, 0
}

// freeLocked frees a call's slot, if the call still has it.
func (c *Client) freeLocked(id uint64) {
	at := uint32(id) - 1
	if s := c.slots[at]; s.id == id {
		s.id, s.caller = 0, nil
		c.free = append(c.free, at)
	}
}

// waitsFor returns the caller that waits for an answer, or nil. If end is set, it also
// frees the slot.
func (c *Client) waitsFor(frame []byte, end bool) Caller {
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
	if !end {
		return caller
	}
	c.freeLocked(id)
	if c.finishing {
		c.finishedLocked()
	}
	return caller
}
