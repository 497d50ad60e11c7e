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

// deliverBatch delivers the whole answers in the buffer, or returns errOver if the rest is for
// the caller that reads next.
func (c *Client) deliverBatch(int) error {
	in := &c.input
	in.PassSkipped()
	c.gathering.begin()
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
		c.gathering.answer(b[size:])
		id, ok := wire.PeekID(frame)
		if !ok {
			return fmt.Errorf("%w: %d bytes", ErrNoID, length)
		}
		if caller := c.callerOf(id, true); caller != nil {
			caller.Answered(&c.answers, frame, nil)
		} else {
			c.noticed(frame)
		}
		in.Consume(size)
		if c.lead.leavesRest() {
			c.answers.Write()
			return errOver
		}
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
// If there is no memory, or the caller does not want the answer, the answer is dropped
// and its caller is told.
func (c *Client) growInput() error {
	in := &c.input
	need := wire.LengthSize + wire.FrameLength(in.Bytes())
	n := quota.SizeFor(need, in.Size())
	var err error
	id, ok := wire.PeekID(in.Bytes()[wire.LengthSize:])
	if !ok {
		return fmt.Errorf("%w: %d bytes", ErrNoID, need-wire.LengthSize)
	}
	if w, ok := c.callerOf(id, false).(chooser); ok {
		err = w.Wants(need)
	}
	if err == nil {
		err = in.Charge(int64(n))
	}
	if err == nil {
		in.Grow(n)
		return nil
	}
	in.Skip(need - in.Len())
	if caller := c.callerOf(id, true); caller != nil {
		caller.Answered(&c.answers, nil, fmt.Errorf("%w: %w", ErrNoRoom, err))
	}
	in.Discard()
	return nil
}

// callerOf returns the caller that waits for the answer with an id, or nil. If end is set,
// it also frees the slot.
func (c *Client) callerOf(id uint64, end bool) Caller {
	c.mu.Lock()
	defer c.mu.Unlock()
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
