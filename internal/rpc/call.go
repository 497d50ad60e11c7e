package rpc

import (
	"context"
	"fmt"
)

// Call is a call that its caller waits for. It is reused: see Client.Release.
type Call struct {
	over  chan struct{}
	frame []byte // the answer, without its length
	err   error
	asker *Account // of who asks
	held  int64    // that it has for the answer
}

// Answered lets Do return.
func (c *Call) Answered(_ *Answers, frame []byte, err error) {
	if n := int64(len(frame)); err == nil && n > smallBuffer {
		if err = c.asker.Take(ForPeers, n); err == nil {
			c.held = n
		} else {
			frame, err = nil, fmt.Errorf("%w: %w", ErrNoRoom, err)
		}
	}
	c.frame, c.err = append(c.frame[:0], frame...), err
	c.over <- struct{}{}
}

// Account is the one on whose behalf the call is made.
func (c *Call) Account() *Account { return c.asker }

type accountKey struct{}

// WithAccount notes for whom the calls under a context are made: answers that are
// long take their memory there, and its share decides whether requests find any.
func WithAccount(ctx context.Context, a *Account) context.Context {
	if a == nil {
		return ctx
	}
	return context.WithValue(ctx, accountKey{}, a)
}

// Frame returns the answer. Its bytes are good until Release.
func (c *Call) Frame() []byte { return c.frame }

// Keep returns the answer and leaves it to the caller for good.
func (c *Call) Keep() []byte {
	f := c.frame
	c.frame = nil
	c.giveBack()
	return f
}

func (c *Call) giveBack() {
	c.asker.Give(ForPeers, c.held)
	c.asker, c.held = nil, 0
}
