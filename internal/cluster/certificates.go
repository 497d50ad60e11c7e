package cluster

import (
	"math"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// A feed of changes has the owners delete what has changed at an origin. One host follows it, and
// certifies moments: all that readers of the origin saw by then is deleted. The other hosts hear of the
// latest moment in the answers to their polls, from any member. Each turns the age that it is told into
// a moment of its own clock, which is never later than the true one. A host that has heard of no moment
// within MaxLag serves nothing of the feed's namespaces that was loaded before, and keeps nothing.

// Feed is a feed of changes whose lag is bounded.
type Feed struct {
	Name       string
	Namespaces []string
	MaxLag     time.Duration
}

// certificates are the latest moments of the feeds. The driver's lock guards them.
type certificates []*certificate

type certificate struct {
	Feed
	at    time.Duration // boot clock; zero: none was heard
	state string        // of the feed's stream then
	late  bool
}

// Bounds of a certificate that is passed on.
const (
	maxAge   = time.Hour
	maxState = 64 // bytes
)

func newCertificates(feeds []Feed) (list certificates) {
	for _, f := range feeds {
		list = append(list, &certificate{Feed: f})
	}
	return list
}

// named returns the certificate of a feed, or nil.
func (c certificates) named(name string) *certificate {
	for _, one := range c {
		if one.Name == name {
			return one
		}
	}
	return nil
}

// dueAt returns when the next feed is late.
func (c certificates) dueAt() time.Duration {
	due := time.Duration(math.MaxInt64)
	for _, one := range c {
		switch {
		case one.late:
		case one.at == 0:
			due = 0
		default:
			due = min(due, one.at+one.MaxLag)
		}
	}
	return due
}

// ages returns what this host tells the others.
func (c certificates) ages(now time.Duration) (list []wire.Certified) {
	for _, one := range c {
		if age := now - one.at; one.at > 0 && age < maxAge {
			list = append(list, wire.Certified{Feed: one.Name, AgeMS: uint64(age.Milliseconds()) + 1, State: one.state})
		}
	}
	return list
}

// judge finds the feeds that are late by now, or in time again. d.mu is held.
func (d *driver) judge(now time.Duration) {
	for _, c := range d.feeds {
		if late := c.at == 0 || now >= c.at+c.MaxLag; late != c.late {
			c.late = late
			d.cfg.Tiers.Late(c.Namespaces, late, d.owned())
			d.report.feedLate(c, now)
		}
	}
	d.due()
}

// due stores when the next tick is due. d.mu is held.
func (d *driver) due() {
	d.dueAt.Store(min(d.lapseAt.Load(), int64(d.feeds.dueAt())))
}

// certified notes a moment up to which a feed has had everything deleted.
func (d *driver) certified(name string, at time.Duration, state string) {
	d.step(func(_ *ownership.Machine, now time.Duration) {
		if c := d.feeds.named(name); c != nil && at > c.at && at <= now {
			c.at, c.state = at, state
			d.judge(now)
		}
	})
}

// heardOf notes what the answer to a poll says, which was sent at a moment.
func (d *driver) heardOf(list []wire.Certified, sent time.Duration) {
	for _, c := range list {
		if c.AgeMS < uint64(maxAge.Milliseconds()) && len(c.State) <= maxState {
			d.certified(c.Feed, sent-Margin(time.Duration(c.AgeMS)*time.Millisecond), c.State)
		}
	}
}

// Certified says that everything is deleted that readers of a feed's origin saw at a moment of the boot
// clock, and what was the state of its stream then.
func (n *Node) Certified(feed string, at time.Duration, state string) {
	n.driver.certified(feed, at, state)
}

// FeedState returns that state, of the last moment that this node has heard of.
func (n *Node) FeedState(feed string) string {
	n.driver.mu.Lock()
	defer n.driver.mu.Unlock()
	if c := n.driver.feeds.named(feed); c != nil {
		return c.state
	}
	return ""
}

// FeedLag returns the age of what is certified of a feed, and whether that is too much for its
// namespaces to be served. bounded is whether its lag is bounded at all; an age of zero means that
// nothing was certified yet.
func (n *Node) FeedLag(feed string) (age time.Duration, late, bounded bool) {
	d := n.driver
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.feeds.named(feed)
	if c == nil {
		return 0, false, false
	}
	if c.at > 0 {
		age = max(1, d.cfg.Clock.Read().Boot-c.at)
	}
	return age, c.late, true
}
