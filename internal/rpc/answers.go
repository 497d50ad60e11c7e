package rpc

import (
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// readLoop reads answers until the connection ends. Then it fails the calls that are
// left.
func (c *Client) readLoop() {
	defer close(c.done)
	err := c.lead.readAll()
	// Before a write fails with a less useful error.
	c.fail(fmt.Errorf("%w: %w", ErrClosed, err))
	_ = c.socket.Conn.Close()
	c.waitForWriter()
	c.mu.Lock()
	why := c.goneLocked()
	c.requests.removeAll(c.socket.Unwritten(), c.calls.notSent)
	unsent := c.calls.giveUpUnsent()
	left, _ := c.calls.giveUp(time.Time{})
	err = c.err
	c.mu.Unlock()
	for _, caller := range unsent {
		caller.Answered(&c.answers, nil, why)
	}
	for _, caller := range left {
		caller.Answered(&c.answers, nil, err)
	}
	c.answers.Write()
	c.input.Discard()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = requests{}
	c.account.Give(quota.ForRequests, c.charged)
	c.charged = 0
	c.account.Close()
	c.account = nil
}

// deliverBatch delivers the whole answers in the buffer.
func (c *Client) deliverBatch(int) error {
	in := &c.input
	in.PassSkipped()
	c.gatherer.beginBatch()
	for in.Len() >= wire.LengthSize {
		b := in.Bytes()
		length := wire.FrameLength(b)
		if length == 0 || length > c.cfg.MaxFrame {
			return fmt.Errorf("%w: %d bytes", ErrFrame, length)
		}
		size := wire.LengthSize + length
		if size > len(b) {
			break
		}
		frame := b[wire.LengthSize:size]
		c.gatherer.answer(b[size:])
		id, ok := wire.PeekID(frame)
		if !ok {
			return fmt.Errorf("%w: %d bytes", ErrNoID, length)
		}
		if caller := c.callerOf(id); caller != nil {
			caller.Answered(&c.answers, frame, nil)
		} else {
			c.noticed(frame)
		}
		in.Consume(size)
	}
	if in.Compact() {
		if err := c.growInput(); err != nil {
			return err
		}
	}
	c.answers.Write()
	in.Release()
	return nil
}

// growInput replaces the full buffer by a larger one, for an answer that has begun in it.
// If there is no memory, the answer is dropped and its caller is told.
func (c *Client) growInput() error {
	in := &c.input
	need := wire.LengthSize + wire.FrameLength(in.Bytes())
	n := quota.SizeFor(need, in.Size())
	id, ok := wire.PeekID(in.Bytes()[wire.LengthSize:])
	if !ok {
		return fmt.Errorf("%w: %d bytes", ErrNoID, need-wire.LengthSize)
	}
	err := in.Charge(int64(n))
	if err == nil {
		in.Grow(n)
		return nil
	}
	in.Skip(need - in.Len())
	if caller := c.callerOf(id); caller != nil {
		caller.Answered(&c.answers, nil, fmt.Errorf("%w: %w", ErrNoRoom, err))
	}
	in.Discard()
	return nil
}

// callerOf frees the slot of the call with an id, and returns the caller that waits for its answer, or
// nil.
func (c *Client) callerOf(id uint64) Caller {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.calls.find(id)
	if s == nil {
		return nil
	}
	caller := c.calls.endCall(s)
	c.finishLocked()
	return caller
}

// writeGatherer is of a Client with ClientConfig.Direct. Callers whose answers come in one read
// soon make their next calls. If each caller wrote its request, or the first one let the
// others run and then wrote, a second processor would write them in twos and threes. So
// during such a batch only the gatherer writes, a goroutine that is started after a part of
// the answers: the scheduler runs it behind their callers, and it writes what they have
// queued. The peer begins with that part while the next callers run.
//
// The Client's lock guards held, last and turn.
type writeGatherer struct {
	c     *Client
	on    bool // answers of a batch are yet to be delivered
	every int  // answers of a part
	left  int  // answers of the present part

	held bool // only a gatherer writes; one is or will be started that ends this
	last bool // the last gatherer of the batch has been started
	turn bool // the gatherer may begin a write

	writeFn func() // write
}

// The calls in flight make partsInFlight parts: one is with the peer, one with the callers,
// one between them. With fewer than manyInFlight calls, parts are too small to pay for a
// gatherer.
const (
	partsInFlight = 3
	manyInFlight  = 8
)

// beginBatch begins a batch, if it has several answers of many calls.
func (g *writeGatherer) beginBatch() {
	c := g.c
	if !c.cfg.Direct {
		return
	}
	if behind, ok := rest(c.input.Bytes()); !ok || !whole(behind) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.calls.inFlight()
	if n < manyInFlight {
		return
	}
	g.on, g.held, g.last = true, true, false
	g.every = n / partsInFlight
	g.left = g.every
}

// answer is called before an answer is delivered. next is what has come behind it.
// The caller that is woken last runs first, so the gatherer is started before that one.
func (g *writeGatherer) answer(next []byte) {
	if !g.on {
		return
	}
	g.left--
	switch {
	case !whole(next):
		g.on = false
		g.c.mu.Lock()
		g.last = true
		g.c.mu.Unlock()
		g.start()
	case g.left == 0:
		g.left = g.every
		g.start()
	}
}

// start starts a gatherer.
func (g *writeGatherer) start() {
	g.c.background.Add(1)
	go g.writeFn() // owned by the client: writes once or until all is written; Close waits
}

// write writes what is queued, once while other parts of the batch follow.
func (g *writeGatherer) write() {
	c := g.c
	defer c.background.Done()
	c.mu.Lock()
	defer c.mu.Unlock()
	if g.last {
		g.held = false
	}
	if !c.writing && !c.requests.empty() {
		c.writing, g.turn = true, true
		c.writeNowLocked()
	}
}

// mayWriteLocked reports whether another write may begin.
func (g *writeGatherer) mayWriteLocked() bool {
	may := !g.held || g.turn
	g.turn = false
	return may
}

// rest returns what is behind the first frame of b. ok says that the frame is whole.
func rest(b []byte) (behind []byte, ok bool) {
	if !whole(b) {
		return nil, false
	}
	return b[wire.LengthSize+wire.FrameLength(b):], true
}

// whole reports whether b begins with a whole frame.
func whole(b []byte) bool {
	return len(b) >= wire.LengthSize && wire.FrameLength(b) <= len(b)-wire.LengthSize
}
