package rpc

import (
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// readLoop reads answers until the connection ends. Then it fails the calls that are
// left.
func (c *Client) readLoop() {
	defer close(c.done)
	err := c.lead.readAll()
	// Before a write fails with a less useful error.
	c.fail(fmt.Errorf("%w: %w", ErrClosed, err))
	_ = c.socket.nc.Close()
	o := &c.outbox
	o.waitForWriter()
	o.mu.Lock()
	why := c.goneLocked()
	c.requests.removeAll(c.socket.fd.unsent, c.calls.notSent)
	unsent := c.calls.giveUpUnsent()
	left, _ := c.calls.giveUp(time.Time{})
	err = o.err
	o.mu.Unlock()
	for _, caller := range unsent {
		caller.Answered(&c.answers, nil, why)
	}
	for _, caller := range left {
		caller.Answered(&c.answers, nil, err)
	}
	c.answers.Write()
	c.input.discard()
	o.mu.Lock()
	defer o.mu.Unlock()
	c.requests = requests{}
	c.account.Give(ForRequests, c.charged)
	c.charged = 0
	c.account.Close()
	c.account = nil
}

// deliverBatch delivers the whole answers in the buffer, or returns errOver if the rest is for
// the caller that reads next.
func (c *Client) deliverBatch(int) error {
	in := &c.input
	in.passSkipped()
	c.gathering.begin()
	for in.len() >= wire.LengthSize {
		length := wire.FrameLength(in.buf[in.r:])
		if length == 0 || length > c.cfg.MaxFrame {
			return fmt.Errorf("%w: %d bytes", ErrFrame, length)
		}
		if in.len() < wire.LengthSize+length {
			break
		}
		frame := in.buf[in.r+wire.LengthSize : in.r+wire.LengthSize+length]
		c.gathering.answer(in.r + wire.LengthSize + length)
		if caller := c.callerOf(frame, true); caller != nil {
			caller.Answered(&c.answers, frame, nil)
		} else {
			c.noticed(frame)
		}
		in.r += wire.LengthSize + length
		if c.lead.leavesRest() {
			c.answers.Write()
			return errOver
		}
	}
	if in.compact() {
		c.growInput()
	}
	c.answers.Write()
	in.release()
	return nil
}

// growInput replaces the full buffer by a larger one, for an answer that has begun in it.
// If there is no memory, or the caller does not want the answer, the answer is dropped
// and its caller is told.
func (c *Client) growInput() {
	in := &c.input
	need := wire.LengthSize + wire.FrameLength(in.buf)
	n := roomFor(need, len(in.buf))
	var err error
	if w, ok := c.callerOf(in.buf[wire.LengthSize:], false).(chooser); ok {
		err = w.Wants(need)
	}
	if err == nil {
		err = in.charge(int64(n))
	}
	if err == nil {
		in.grow(n)
		return
	}
	in.skip = need - in.w
	if caller := c.callerOf(in.buf[wire.LengthSize:], true); caller != nil {
		caller.Answered(&c.answers, nil, fmt.Errorf("%w: %w", ErrNoRoom, err))
	}
	in.r, in.w = 0, 0
}

// callerOf returns the caller that waits for an answer, or nil. If end is set, it also
// frees the slot.
func (c *Client) callerOf(frame []byte, end bool) Caller {
	id, ok := wire.PeekID(frame)
	if !ok {
		return nil
	}
	c.outbox.mu.Lock()
	defer c.outbox.mu.Unlock()
	s := c.calls.find(id)
	if s == nil {
		return nil
	}
	if !end {
		return s.caller
	}
	caller := c.calls.end(s)
	c.finishLocked()
	return caller
}
