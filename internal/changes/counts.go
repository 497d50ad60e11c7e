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

	mu        sync.Mutex
	state     string
	since     time.Time // the state
	err       string
	gapAt     time.Time
	gapWhy    string
	lag       time.Duration // of the last transaction
	lagAt     time.Time
	oldest    time.Time     // when the oldest pending transaction came; zero: there is none
	pending   int           // transactions whose keys are not all deleted
	retained  int64         // bytes of its log that the server keeps for the feed
	clockSkew time.Duration // of the server's clock, which is ahead by it

	received    loader.Position // what has come
	serverEnd   loader.Position // where the server's log ended at logAt
	serverEndAt time.Time
}

const (
	lagFor    = time.Minute     // how long the lag of a transaction is told
	slowStart = 5 * time.Second // a beginning that takes longer is told
	silentFor = 2 * checkEvery  // a stream is late that brings nothing for longer, although the server was asked
)

// setState notes a state, and drops the figures that do not hold in it.
func (c *counts) setState(state string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != state {
		c.state, c.since = state, time.Now()
	}
	if state == Following || state == Elsewhere {
		c.err = ""
	}
	if state != Following {
		c.oldest, c.pending, c.lag, c.received, c.serverEnd = time.Time{}, 0, 0, 0, 0
	}
	if state == Elsewhere {
		c.retained = 0 // the other host counts it
	}
}

func (c *counts) failed(why string) {
	c.failures.Add(1)
	c.setState(Failed)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = why
}

func (c *counts) noteGap(why loader.Gap) {
	c.gaps.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gapAt, c.gapWhy = time.Now(), string(why)
}

func (c *counts) lastGap() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gapAt
}

// noteView notes how much log the server keeps, its clock, and where its log ends.
func (c *counts) noteView(v loader.View) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retained, c.clockSkew = v.Kept, time.Until(v.Now)
	if c.received >= c.serverEnd { // else the earlier end has not come yet
		c.serverEnd, c.serverEndAt = v.End, time.Now()
	}
}

// silent reports whether the stream has not brought what the server's log had a while ago.
func (c *counts) silent() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.received < c.serverEnd && time.Since(c.serverEndAt) > checkEvery/2
}

// noteReceived notes how far the stream has come.
func (c *counts) noteReceived(at loader.Position) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.received = max(c.received, at)
}

// noteDeleted notes how long after its commit a transaction was deleted, by the clock of the server.
func (c *counts) noteDeleted(p *pending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !p.Committed.IsZero() {
		c.lag, c.lagAt = max(0, time.Since(p.Committed)+c.clockSkew), time.Now()
	}
}

// notePending notes the transactions that are pending, the oldest first.
func (c *counts) notePending(order []*pending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending, c.oldest = len(order), time.Time{}
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
		UnderWay: int64(c.pending), KeptBytes: c.retained,
		Rows: c.rows.Load(), Deletions: c.deletions.Load(), Flushes: c.flushes.Load(), Gaps: c.gaps.Load(),
		Failures: c.failures.Load(), LastGap: c.gapWhy,
	}
	if time.Since(c.lagAt) < lagFor {
		s.LagMS = c.lag.Milliseconds()
	}
	if !c.oldest.IsZero() {
		s.LagMS = max(s.LagMS, time.Since(c.oldest).Milliseconds())
	}
	if c.state == Following && c.received < c.serverEnd && time.Since(c.serverEndAt) > silentFor { // not sent
		s.LagMS = max(s.LagMS, time.Since(c.serverEndAt).Milliseconds())
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
