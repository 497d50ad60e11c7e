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
func (rd *Redialer) Get(ctx context.Context) (*Client, error) {
	if c := rd.Live(); c != nil {
		return c, nil
	}
	if err := rd.lockIdle(ctx); err != nil {
		return nil, err
	}
	if c := rd.live.Load(); c != nil {
		if c.alive() {
			rd.mu.Unlock()
			return c, nil
		}
		rd.live.Store(nil) // its reader has ended it, or it leaves
		rd.retireLocked(c)
	}
	if rd.lastErr != nil && time.Now().Before(rd.nextDial) {
		err := rd.lastErr
		rd.mu.Unlock()
		return nil, fmt.Errorf("%w: %w", ErrDown, err)
	}
	rd.dialing = make(chan struct{})
	rd.mu.Unlock()
	c, err := rd.Dial(ctx)
	return rd.dialed(ctx, c, err)
}

// lockIdle locks r.mu at a moment when no connection is being made, unless it returns an error.
func (rd *Redialer) lockIdle(ctx context.Context) error {
	for {
		rd.mu.Lock()
		other := rd.dialing
		switch {
		case rd.closed:
			rd.mu.Unlock()
			return ErrRedialerClosed
		case other == nil:
			return nil
		}
		rd.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrDown, ctx.Err())
		}
	}
}

// dialed ends an attempt.
func (rd *Redialer) dialed(ctx context.Context, c *Client, err error) (*Client, error) {
	rd.mu.Lock()
	close(rd.dialing)
	rd.dialing = nil
	closed := rd.closed
	switch {
	case closed:
	case err == nil:
		rd.lastErr, rd.pause = nil, 0
		rd.live.Store(c)
	case ctx.Err() == nil && rd.Eager != nil && rd.Eager():
		rd.lastErr, rd.nextDial = err, time.Now().Add(eagerPause)
	case ctx.Err() == nil: // otherwise the error says nothing about the peer
		rd.pause = min(max(2*rd.pause, firstPause), lastPause)
		rd.nextDial = time.Now().Add(rd.pause/2 + rand.N(rd.pause))
		rd.lastErr = err
	}
	rd.mu.Unlock()
	if closed && c != nil {
		_ = c.Close()
		return nil, ErrRedialerClosed
	}
	return c, err
}

// retireLocked keeps a connection that has calls in flight, for Close.
func (rd *Redialer) retireLocked(c *Client) {
	rd.retired = append(slices.DeleteFunc(rd.retired, (*Client).ended), c)
}

// Replace replaces the present connection by the one that replace makes. Meanwhile the
// callers of Get wait. Replace returns false if there is no connection to replace; then
// it makes none.
func (rd *Redialer) Replace(ctx context.Context, replace func(old *Client) (*Client, error)) (bool, error) {
	if err := rd.lockIdle(ctx); err != nil {
		return false, err
	}
	old := rd.Live()
	if old == nil {
		rd.mu.Unlock()
		return false, nil
	}
	rd.live.Store(nil)
	rd.dialing = make(chan struct{})
	rd.retireLocked(old)
	rd.mu.Unlock()
	c, err := replace(old)
	_, err = rd.dialed(ctx, c, err)
	return true, err
}

// Idle says whether there is no connection, and none is being made.
func (rd *Redialer) Idle() bool {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	return rd.dialing == nil && rd.Live() == nil
}

// Live returns the connection, or nil if there is none. It does not dial.
func (rd *Redialer) Live() *Client {
	if c := rd.live.Load(); c != nil && c.alive() {
		return c
	}
	return nil
}

// Leave closes the connection once no call waits for an answer, and waits for that until
// ctx ends; also for the calls of connections that were replaced. No connection is made
// afterwards. Close is still needed.
func (rd *Redialer) Leave(ctx context.Context) {
	rd.mu.Lock()
	rd.closed = true
	leaving := slices.Clone(rd.retired)
	if c := rd.live.Load(); c != nil {
		leaving = append(leaving, c)
	}
	rd.mu.Unlock()
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
func (rd *Redialer) Close() {
	rd.mu.Lock()
	rd.closed = true
	c, old := rd.live.Swap(nil), rd.retired
	rd.retired = nil
	rd.mu.Unlock()
	if c != nil {
		_ = c.Close()
	}
	for _, c := range old {
		_ = c.Close()
	}
}
