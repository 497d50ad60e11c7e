package changes

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/loader"
)

// States of a feed on a host.
const (
	Elsewhere = "elsewhere" // another host follows it
	Starting  = "starting"
	Following = "following"
	Failed    = "failed" // it is tried again
)

// counts are the figures of a feed.
type counts struct {
	rows, deletions, flushes, gaps, failures atomic.Int64

	mu     sync.Mutex
	state  string
	err    string
	gapAt  time.Time
	gapWhy string
	lag    time.Duration // of the last transaction
	oldest time.Time     // when the first of those came that are not deleted; zero: there is none
	under  int           // transactions under way
	kept   int64         // bytes of the log of the server
	ahead  time.Duration // of the server's clock before this host's
}

func (c *counts) is(state string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state = state; state == Following || state == Elsewhere {
		c.err = ""
	}
	if state != Following {
		c.oldest, c.under, c.lag = time.Time{}, 0, 0
	}
	if state == Elsewhere {
		c.kept = 0 // the other host counts it
	}
}

func (c *counts) failed(err error) {
	c.failures.Add(1)
	c.is(Failed)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err.Error()
}

func (c *counts) gap(why string) {
	c.gaps.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gapAt, c.gapWhy = time.Now(), why
}

func (c *counts) lastGap() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gapAt
}

func (c *counts) seen(v loader.View) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept, c.ahead = v.Kept(), time.Until(v.Now())
}

// done notes how long after its commit a transaction was deleted, by the clock of the server.
func (c *counts) done(p *pending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !p.Committed.IsZero() {
		c.lag = max(0, time.Since(p.Committed)+c.ahead)
	}
}

func (c *counts) behind(order []*pending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.under, c.oldest = len(order), time.Time{}
	if len(order) > 0 {
		c.oldest = order[0].came
	}
}

// Stats returns the feed's part of STATS.
func (f *Follower) Stats() cachesidecar.ChangesStats {
	c := &f.counts
	c.mu.Lock()
	defer c.mu.Unlock()
	s := cachesidecar.ChangesStats{
		Name: f.name, State: c.state, Following: c.state == Following, Error: c.err,
		UnderWay: int64(c.under), LagMS: c.lag.Milliseconds(), KeptBytes: c.kept,
		Rows: c.rows.Load(), Deletions: c.deletions.Load(), Flushes: c.flushes.Load(), Gaps: c.gaps.Load(),
		Failures: c.failures.Load(), LastGap: c.gapWhy,
	}
	if !c.oldest.IsZero() {
		s.LagMS = max(s.LagMS, time.Since(c.oldest).Milliseconds())
	}
	return s
}
