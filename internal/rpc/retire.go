package rpc

import (
	"context"
	"errors"
	"fmt"
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
	q, last := wire.Request{Op: wire.OpPing}, &Call{over: make(chan struct{}, rooms)}
	c.mu.Lock()
	err := c.goneLocked()
	if err == nil {
		// Also if the connection has MaxCalls calls.
		c.requests.addEnd(&q, c.beginLocked(&q, maxLast, last))
		c.retiring = true
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	c.Flush()
	if err := c.await(ctx, last, q.ID); err != nil {
		return err
	}
	return last.err
}

// Finish tells the peer of a retired connection that no more requests come. It closes the
// connection once no call waits for an answer.
func (c *Client) Finish() {
	c.socket.CloseWrite() // everything is written; fails if the connection has ended
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finishing = true
	c.finishLocked()
}

// Await sends a request whose answer may come at any time, or never. It takes no place of
// calls, and has no time limit. The reader calls told with the answer, whose bytes are
// valid until told returns. A connection awaits one answer.
func (c *Client) Await(q *wire.Request, told func(frame []byte)) error {
	c.mu.Lock()
	err := c.goneLocked()
	if err == nil {
		q.ID, c.told = 0, told // calls have other ids
		c.requests.add(q, nil, time.Time{})
	}
	c.mu.Unlock()
	if err == nil {
		c.Flush()
	}
	return err
}

// noticed passes an answer on that no call waits for.
func (c *Client) noticed(frame []byte) {
	c.mu.Lock()
	told := c.told
	c.mu.Unlock()
	if id, ok := wire.PeekID(frame); ok && id == 0 && told != nil {
		told(frame)
	}
}

// Leave makes a connection take no more calls. It closes the connection once no call waits
// for an answer. A Redialer makes another one.
func (c *Client) Leave() {
	c.leaving.Store(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retiring, c.finishing = true, true
	c.finishLocked()
}

// cutLocked takes note that the peer reads no more: it is about to close the connection,
// and still answers what it has read. The reader tells the other callers at the end.
func (c *Client) cutLocked() {
	c.leaving.Store(true)
	c.retiring = true
	c.requests.removeAll(c.socket.Unwritten(), c.calls.notSent)
}

// Retiring says whether another connection replaces this one.
func (c *Client) Retiring() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.retiring
}

// finishLocked ends a finishing connection if no call waits for an answer.
func (c *Client) finishLocked() {
	if c.finishing && !c.calls.anyWaits() {
		c.failLocked(fmt.Errorf("%w: %w", ErrNotSent, ErrRetiring))
	}
}
