package rpc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Errors of a Redialer, beside those of its Dial.
var (
	// ErrDown: there is no connection, and none is tried at this moment.
	ErrDown = errors.New("not connected")
	// ErrRetired: the Redialer was closed.
	ErrRetired = errors.New("closed for good")
)

// Redialer keeps one connection: it makes it on demand, and again after it was
// lost. After a failed attempt calls fail fast for a pause that doubles up to a
// second, with jitter. It is safe for concurrent use and has no goroutine of
// its own.
type Redialer struct {
	// Dial makes a connection, ready for calls.
	Dial func(context.Context) (*Client, error)

	live atomic.Pointer[Client]

	mu     sync.Mutex // held while connecting
	closed bool
	failed error // of the last attempt
	until  time.Time
	pause  time.Duration
}

// Pauses between attempts to connect.
const (
	firstPause = 10 * time.Millisecond
	lastPause  = time.Second
)

// Get returns a connection that was alive when last seen.
func (r *Redialer) Get(ctx context.Context) (*Client, error) {
	if c := r.live.Load(); c != nil && c.alive() {
		return c, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrRetired
	}
	if c := r.live.Load(); c != nil {
		if c.alive() {
			return c, nil
		}
		r.live.Store(nil)
		_ = c.Close()
	}
	if r.failed != nil && time.Now().Before(r.until) {
		return nil, fmt.Errorf("%w: %w", ErrDown, r.failed)
	}
	c, err := r.Dial(ctx)
	if err != nil {
		if ctx.Err() == nil {
			r.pause = min(max(2*r.pause, firstPause), lastPause)
			r.until = time.Now().Add(r.pause/2 + rand.N(r.pause))
			r.failed = err
		}
		return nil, err
	}
	r.failed, r.pause = nil, 0
	r.live.Store(c)
	return c, nil
}

// Live returns the connection if there is one, and makes none.
func (r *Redialer) Live() *Client {
	if c := r.live.Load(); c != nil && c.alive() {
		return c
	}
	return nil
}

// Close ends the connection, and none is made again.
func (r *Redialer) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if c := r.live.Swap(nil); c != nil {
		_ = c.Close()
	}
}

func (c *Client) alive() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}
