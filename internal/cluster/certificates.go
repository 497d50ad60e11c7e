package cluster

import (
	"math"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// A feed of changes has the owners delete what has changed at an origin. One host follows it, and
// certifies moments: all that readers of the origin saw by then is deleted. The other hosts hear of the
// latest moment in the answers to their polls, from any member. Each turns the age that it is told into
// a moment of its own clock, which is never later than the true one. A host that has heard of no moment
// within MaxLag serves nothing of the feed's namespaces that was loaded before, and keeps nothing.

// Feed is a feed of changes.
type Feed struct {
	Name       string
	Namespaces []string
	MaxLag     time.Duration // zero: the lag is not bounded, and the feed is never late
}

// certificates are the latest moments of the feeds.
type certificates []*certificate

type certificate struct {
	Feed
	heard bool          // of a moment, here or from another host
	at    time.Duration // boot clock; below zero: before this machine was started
	state string        // of the feed's stream then
	late  bool
	since time.Duration // it is late
	again time.Duration // when a late one is due again
	told  bool          // the log says that it is late
}

// Bounds of what hosts tell each other.
const (
	maxAge   = time.Hour // no feed is in time with an older certificate
	maxState = 64        // bytes
	maxFeeds = 16
)

func newCertificates(feeds []Feed) (list certificates) {
	for _, f := range feeds {
		list = append(list, &certificate{Feed: f})
	}
	return list
}

// named returns the certificate of a feed, or nil.
func (certs certificates) named(name string) *certificate {
	for _, one := range certs {
		if one.Name == name {
			return one
		}
	}
	return nil
}

// dueAt returns when the next feed is late.
func (certs certificates) dueAt() time.Duration {
	due := time.Duration(math.MaxInt64)
	for _, one := range certs {
		switch {
		case one.MaxLag == 0:
		case one.late:
			due = min(due, one.again)
		case !one.heard:
			due = 0
		default:
			due = min(due, one.at+one.MaxLag)
		}
	}
	return due
}

// ages returns what this host tells the others.
func (certs certificates) ages(now time.Duration) (list []wire.Certified) {
	for _, one := range certs {
		if one.heard {
			age := min(now-one.at, maxAge)
			list = append(list, wire.Certified{Feed: one.Name, AgeMS: uint64(age.Milliseconds()) + 1, State: one.state})
		}
	}
	return list
}

// takeAges takes what the answer to a poll says, which was sent at a moment. Of an old certificate, whose
// age is cut, only the state counts, and only if there is none here.
func (certs certificates) takeAges(list []wire.Certified, sent time.Duration) {
	for _, w := range list[:min(len(list), maxFeeds)] {
		one := certs.named(w.Feed)
		if one == nil || len(w.State) > maxState {
			continue
		}
		age := ownership.Margin(time.Duration(min(w.AgeMS, uint64(maxAge.Milliseconds()))) * time.Millisecond)
		at := sent - age
		if at <= 0 && failpoint.Out(failpoint.YoungState) {
			continue
		}
		if !one.heard || at > one.at && age < maxAge {
			one.heard, one.at, one.state = true, at, w.State
		}
	}
}
