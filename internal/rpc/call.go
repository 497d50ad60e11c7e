package rpc

import (
	"context"
	"fmt"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/transport"
)

// Call is a call whose caller waits for the answer. Calls are reused: see Client.Release.
type Call struct {
	over    chan struct{}
	frame   []byte // the answer, without its length
	err     error
	account *quota.Account // of the client for which the call is made; may be nil
	held    int64          // bytes charged to account for the answer
}

// Answered makes Do return.
func (c *Call) Answered(_ *transport.Answers, frame []byte, err error) {
	if n := int64(len(frame)); err == nil && n > transport.BufferSize {
		if err = c.account.Take(quota.ForPeers, n); err == nil {
			c.held = n
		} else {
			frame, err = nil, fmt.Errorf("%w: %w", ErrNoRoom, err)
		}
	}
	c.frame, c.err = append(c.frame[:0], frame...), err
	c.over <- struct{}{}
}

// Account returns the account for which the call is made; it may be nil.
func (c *Call) Account() *quota.Account { return c.account }

type accountKey struct{}

// WithAccount returns a context whose calls are made for account a. Long answers are
// charged to a, and the share of a decides whether there is memory for the requests.
func WithAccount(ctx context.Context, a *quota.Account) context.Context {
	if a == nil {
		return ctx
	}
	return context.WithValue(ctx, accountKey{}, a)
}

// Frame returns the answer. Its bytes are valid until Release.
func (c *Call) Frame() []byte { return c.frame }

// Keep returns the answer. Its bytes belong to the caller from then on.
func (c *Call) Keep() []byte {
	f := c.frame
	c.frame = nil
	c.giveBack()
	return f
}

func (c *Call) giveBack() {
	c.account.Give(quota.ForPeers, c.held)
	c.account, c.held = nil, 0
}
