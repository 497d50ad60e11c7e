package changes

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/loader"
)

// certificate is a moment of which it is to be shown that everything is deleted that readers saw by then.
// A transaction that they saw had its commit in the log, perhaps not written yet. So all of them have
// come once the stream is where the log ended after the moment; and of those, what a view from after the
// moment does not see, no reader saw.
type certificate struct {
	at         time.Duration     // boot clock
	view       loader.View       // from after it
	checkpoint loader.Checkpoint // of the stream, after it
}

// leastEvery bounds how often the catalog is looked at.
const leastEvery = 500 * time.Millisecond

// gapPause returns the time between two flushes of all namespaces at least. While one is due, nothing is
// certified.
func (f *Follower) gapPause() time.Duration {
	if f.MaxLag == 0 {
		return gapPause
	}
	return min(gapPause, f.MaxLag/4)
}

// wholeEvery returns the time between two questions whether the stream is whole. A certificate begins
// with each.
func (f *Follower) wholeEvery() time.Duration {
	if f.MaxLag == 0 {
		return checkEvery
	}
	return min(checkEvery, max(f.MaxLag/8, leastEvery))
}

// beginCertificate begins one of a moment, unless one is under way. The stream was whole after it.
func (s *following) beginCertificate(at time.Duration, v loader.View) {
	if s.next == nil {
		s.next = &certificate{at: at, view: v, checkpoint: s.stream.Checkpoint()}
		s.certify()
	}
}

// certify ends the certificate that is under way, if it holds by now.
func (s *following) certify() {
	c := s.next
	if c == nil {
		return
	}
	if !failpoint.Out(failpoint.Certify) {
		if s.heard < c.view.Inserted {
			return
		}
		for _, p := range s.order {
			if p.End > c.view.Inserted {
				break
			}
			if !p.done && c.view.Sees(p.Transaction) {
				return
			}
		}
	}
	s.next = nil
	s.host.Certified(s.name, c.at, c.checkpoint)
	s.telling = append(s.telling, told{c.checkpoint, time.Now()})
}

// told is the checkpoint of a certificate that the other hosts are hearing of.
type told struct {
	checkpoint loader.Checkpoint
	at         time.Time
}

// forget has the server forget what all hosts know to be deleted. A host that follows next, and finds that the
// server has forgotten more than it knows of, has not been told of it by a host of this cluster.
func (s *following) forget() {
	known := loader.Checkpoint("")
	for len(s.telling) > 0 && time.Since(s.telling[0].at) >= s.Heard {
		known, s.telling = s.telling[0].checkpoint, s.telling[1:]
	}
	if known != "" {
		s.stream.Forget(known)
	}
}
