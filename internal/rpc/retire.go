package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// ErrRetiring means that another connection replaces this one. The request was not sent.
var ErrRetiring = errors.New("the connection gives way to another")

// maxLast bounds the wait for the answer to Retire's PING, but not the calls before it.
const maxLast = 10 * time.Second

// Retire makes a connection take no more calls. When Retire returns nil, the peer has
// begun all calls that were made: it serves requests in the order in which they are sent,
// and has answered the last one, a PING. Call Finish afterwards.
func (c *Client) Retire(ctx context.Context) error {
	q, last := wire.Request{Op: wire.OpPing}, &Call{over: make(chan struct{}, 1)}
	c.mu.Lock()
	err := c.goneLocked()
	if err == nil {
		// Also if the connection has MaxCalls calls.
		c.waiting.addEnd(&q, c.placeLocked(&q, maxLast, last))
		c.retiring = true
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	c.flush()
	select {
	case <-last.over:
		return last.err
	case <-ctx.Done():
		c.abandon(q.ID)
		return context.Cause(ctx)
	}
}

// Finish tells the peer of a retired connection that no more requests come. It closes the
// connection once no call waits for an answer.
func (c *Client) Finish() {
	if cw, ok := c.nc.(interface{ CloseWrite() error }); ok {
		_ = cw.CloseWrite() // everything is written; fails if the connection has ended
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finishing = true
	c.finishedLocked()
}

// Retiring says whether another connection replaces this one.
func (c *Client) Retiring() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.retiring
}

// finishedLocked ends a finishing connection if no call waits for an answer.
func (c *Client) finishedLocked() {
	if !c.finishing {
		return
	}
	for _, s := range c.slots {
		if s.caller != nil {
			return
		}
	}
	c.failLocked(fmt.Errorf("%w: %w", ErrNotSent, ErrRetiring))
}

// Replace replaces the present connection by the one that replace makes. Meanwhile the
// callers of Get wait. Replace returns false if there is no connection to replace; then
// it makes none.
func (r *Redialer) Replace(ctx context.Context, replace func(old *Client) (*Client, error)) (bool, error) {
	old, err := r.hide(ctx)
	if old == nil {
		return false, err
	}
	c, err := replace(old)
	_, err = r.dialed(ctx, c, err)
	return true, err
}

// Idle says whether there is no connection, and none is being made.
func (r *Redialer) Idle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.live.Load()
	return r.dialing == nil && (c == nil || !c.alive())
}

// hide removes the present connection, as if another were being made.
func (r *Redialer) hide(ctx context.Context) (*Client, error) {
	for {
		r.mu.Lock()
		other, c := r.dialing, r.live.Load()
		switch {
		case r.closed:
			r.mu.Unlock()
			return nil, ErrRetired
		case other == nil && (c == nil || !c.alive()):
			r.mu.Unlock()
			return nil, nil
		case other == nil:
			r.live.Store(nil)
			r.dialing = make(chan struct{})
			r.retired = append(slices.DeleteFunc(r.retired, func(c *Client) bool { return !c.alive() }), c)
			r.mu.Unlock()
			return c, nil
		}
		r.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
