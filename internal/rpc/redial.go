package rpc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Errors of a Redialer, beside those of its Dial.
var (
	// ErrDown means that there is no connection, and none is tried at this moment.
	ErrDown = errors.New("not connected")
	// ErrRedialerClosed means that the Redialer was closed.
	ErrRedialerClosed = errors.New("closed for good")
)

// Redialer keeps one connection. It dials on demand, and again after the connection was
// lost. After a failed attempt calls fail fast for a pause that doubles up to a second,
// with jitter. A Redialer is safe for concurrent use and has no goroutine of its own.
type Redialer struct {
	// Dial makes a connection that is ready for calls.
	Dial func(context.Context) (*Client, error)
	// Eager says that the peer is about to be back: the pause after a failed attempt is
	// then as short as it can be. Nil: it never is.
	Eager func() bool

	live atomic.Pointer[Client]

	mu       sync.Mutex
	dialing  chan struct{} // closed when the current attempt has ended; nil without one
	closed   bool
	retired  []*Client // replaced connections, which may have calls in flight
	lastErr  error     // of the last attempt
	nextDial time.Time // calls fail fast until then, if the last attempt has failed
	pause    time.Duration
}

// Pauses between attempts to connect.
const (
	firstPause = 10 * time.Millisecond
	lastPause  = time.Second
	eagerPause = 4 * time.Millisecond
)

// Get returns a connection that was alive when last seen, or makes one. If another caller
// is making one, Get waits for it until ctx ends.
func (r *Redialer) Get(ctx context.Context) (*Client, error) {
	if c := r.Live(); c != nil {
		return c, nil
	}
	if err := r.lockIdle(ctx); err != nil {
		return nil, err
	}
	if c := r.live.Load(); c != nil {
		if c.alive() {
			r.mu.Unlock()
			return c, nil
		}
		r.live.Store(nil) // its reader has ended it, or it leaves
		r.retireLocked(c)
	}
	if r.lastErr != nil && time.Now().Before(r.nextDial) {
		err := r.lastErr
		r.mu.Unlock()
		return nil, fmt.Errorf("%w: %w", ErrDown, err)
	}
	r.dialing = make(chan struct{})
	r.mu.Unlock()
	c, err := r.Dial(ctx)
	return r.dialed(ctx, c, err)
}

// lockIdle locks r.mu at a moment when no connection is being made, unless it returns an error.
func (r *Redialer) lockIdle(ctx context.Context) error {
	for {
		r.mu.Lock()
		other := r.dialing
		switch {
		case r.closed:
			r.mu.Unlock()
			return ErrRedialerClosed
		case other == nil:
			return nil
		}
		r.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrDown, ctx.Err())
		}
	}
}

// dialed ends an attempt.
func (r *Redialer) dialed(ctx context.Context, c *Client, err error) (*Client, error) {
	r.mu.Lock()
	close(r.dialing)
	r.dialing = nil
	closed := r.closed
	switch {
	case closed:
	case err == nil:
		r.lastErr, r.pause = nil, 0
		r.live.Store(c)
	case ctx.Err() == nil && r.Eager != nil && r.Eager():
		r.lastErr, r.nextDial = err, time.Now().Add(eagerPause)
	case ctx.Err() == nil: // otherwise the error says nothing about the peer
		r.pause = min(max(2*r.pause, firstPause), lastPause)
		r.nextDial = time.Now().Add(r.pause/2 + rand.N(r.pause))
		r.lastErr = err
	}
	r.mu.Unlock()
	if closed && c != nil {
		_ = c.Close()
		return nil, ErrRedialerClosed
	}
	return c, err
}

// retireLocked keeps a connection that has calls in flight, for Close.
func (r *Redialer) retireLocked(c *Client) {
	r.retired = append(slices.DeleteFunc(r.retired, (*Client).ended), c)
}

// Replace replaces the present connection by the one that replace makes. Meanwhile the
// callers of Get wait. Replace returns false if there is no connection to replace; then
// it makes none.
func (r *Redialer) Replace(ctx context.Context, replace func(old *Client) (*Client, error)) (bool, error) {
	if err := r.lockIdle(ctx); err != nil {
		return false, err
	}
	old := r.Live()
	if old == nil {
		r.mu.Unlock()
		return false, nil
	}
	r.live.Store(nil)
	r.dialing = make(chan struct{})
	r.retireLocked(old)
	r.mu.Unlock()
	c, err := replace(old)
	_, err = r.dialed(ctx, c, err)
	return true, err
}

// Idle says whether there is no connection, and none is being made.
func (r *Redialer) Idle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dialing == nil && r.Live() == nil
}

// Live returns the connection, or nil if there is none. It does not dial.
func (r *Redialer) Live() *Client {
	if c := r.live.Load(); c != nil && c.alive() {
		return c
	}
	return nil
}

// Leave closes the connection once no call waits for an answer, and waits for that until
// ctx ends; also for the calls of connections that were replaced. No connection is made
// afterwards. Close is still needed.
func (r *Redialer) Leave(ctx context.Context) {
	r.mu.Lock()
	r.closed = true
	leaving := slices.Clone(r.retired)
	if c := r.live.Load(); c != nil {
		leaving = append(leaving, c)
	}
	r.mu.Unlock()
	for _, c := range leaving {
		c.Leave()
	}
	for _, c := range leaving {
		select {
		case <-c.Done():
		case <-ctx.Done():
		}
	}
}

// Close closes the connection. No connection is made afterwards.
func (r *Redialer) Close() {
	r.mu.Lock()
	r.closed = true
	c, old := r.live.Swap(nil), r.retired
	r.retired = nil
	r.mu.Unlock()
	if c != nil {
		_ = c.Close()
	}
	for _, c := range old {
		_ = c.Close()
	}
}
