package client

import (
	"context"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Joined returns how many calls of GetOrLoad wait for a question that has no answer yet.
func (c *Client) Joined() (n int) {
	c.loads.mu.Lock()
	defer c.loads.mu.Unlock()
	for _, q := range c.loads.keys {
		n++ // the flight under way, which began with one caller or has taken over those that wait
		if q.next != nil {
			n += q.next.callers
		}
	}
	return n
}

// Call makes a call that has no method.
func (c *Client) Call(ctx context.Context, q *wire.Request) error {
	a, err := c.do(ctx, c.anySlot(), q)
	a.release()
	return err
}

// Doubted says whether a connection is in doubt.
func (c *Client) Doubted() bool {
	for _, s := range c.slots {
		if s.doubt.Load() != nil {
			return true
		}
	}
	return false
}

// PassMove waits until the sidecar has said that it closes, and makes the time pass for which calls wait for
// the next one.
func PassMove(t testing.TB, c *Client) {
	t.Helper()
	testenv.Eventually(t, "the sidecar says that it closes", func() bool { return c.movesAt.Load() != 0 })
	at := c.movesAt.Load() - int64(moveFor)
	if at == 0 { // means never
		at--
	}
	c.movesAt.Store(at)
}

// CountNear counts a hit of the near cache, which only SendHits reports.
func (c *Client) CountNear(key string) {
	c.hits.due.Store(true)
	c.hits.tallyOf(c.cfg.Namespace).add(inNear, key)
}

// SendHits is sendHits.
func (c *Client) SendHits(ctx context.Context) { sendHits(ctx, c) }

// AllReported says whether nothing of what was counted waits to be reported.
func (c *Client) AllReported() bool {
	for _, t := range c.hits.tallies() {
		if t.takeReport() != nil {
			return false
		}
	}
	return true
}
