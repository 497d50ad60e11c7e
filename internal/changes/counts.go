package changes

import (
	"fmt"
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
	since  time.Time // the state
	err    string
	gapAt  time.Time
	gapWhy string
	lag    time.Duration // of the last transaction
	lagAt  time.Time
	oldest time.Time     // when the first of those came that are not deleted; zero: there is none
	under  int           // transactions under way
	kept   int64         // bytes of the log of the server
	ahead  time.Duration // of the server's clock before this host's

	heard loader.Position // what has come
	log   loader.Position // where the server's log ended at logAt
	logAt time.Time
}

const (
	lagFor    = time.Minute     // how long the lag of a transaction is told
	slowStart = 5 * time.Second // a beginning that takes longer is told
	silentFor = 2 * brokenEvery // a stream that brings nothing of the log for longer is late, although it was nudged
)

func (c *counts) is(state string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != state {
		c.state, c.since = state, time.Now()
	}
	if state == Following || state == Elsewhere {
		c.err = ""
	}
	if state != Following {
		c.oldest, c.under, c.lag, c.heard, c.log = time.Time{}, 0, 0, 0, 0
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
	c.kept, c.ahead = v.Kept, time.Until(v.Now)
	if c.heard >= c.log { // else the earlier end has not come yet
		c.log, c.logAt = v.End, time.Now()
	}
}

// silent reports whether the stream has not brought what the server's log had a while ago.
func (c *counts) silent() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heard < c.log && time.Since(c.logAt) > brokenEvery/2
}

// came notes how far the stream has come.
func (c *counts) came(at loader.Position) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard = max(c.heard, at)
}

// done notes how long after its commit a transaction was deleted, by the clock of the server.
func (c *counts) done(p *pending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !p.Committed.IsZero() {
		c.lag, c.lagAt = max(0, time.Since(p.Committed)+c.ahead), time.Now()
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
		UnderWay: int64(c.under), KeptBytes: c.kept,
		Rows: c.rows.Load(), Deletions: c.deletions.Load(), Flushes: c.flushes.Load(), Gaps: c.gaps.Load(),
		Failures: c.failures.Load(), LastGap: c.gapWhy,
	}
	if time.Since(c.lagAt) < lagFor {
		s.LagMS = c.lag.Milliseconds()
	}
	if !c.oldest.IsZero() {
		s.LagMS = max(s.LagMS, time.Since(c.oldest).Milliseconds())
	}
	if c.state == Following && c.heard < c.log && time.Since(c.logAt) > silentFor { // the server does not send it
		s.LagMS = max(s.LagMS, time.Since(c.logAt).Milliseconds())
	}
	if took := time.Since(c.since); c.state == Starting && took > slowStart {
		s.Error = fmt.Sprintf("it has been starting for %v, and deletes nothing meanwhile: the server waits for "+
			"transactions that are open, a host does not answer to a flush, or it began anew less than %v ago",
			took.Round(time.Second), gapPause)
		if c.err != "" {
			s.Error += "; before: " + c.err
		}
	}
	return s
}
