package invalidation

import (
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
)

// Follower is one reader's place in the Log of one run of another process, and the
// lease that follows from it: the moment up to which everything that was accepted
// there has been applied here. Both are zero at the start of each run.
//
// A write that was accepted there before a poll was sent has a place up to the head
// that the poll's answer names. So once everything up to that head has been applied,
// the lease reaches back to the moment the poll was sent, by this host's own clock. A
// Follower is safe for concurrent use.
type Follower struct {
	mu      sync.Mutex
	applied uint64
	lease   time.Duration // zero: none
	polls   []poll        // not covered yet, oldest first
}

type poll struct {
	sent time.Duration
	head uint64
}

// maxPolls bounds the polls that wait to be covered; a later poll is as good.
const maxPolls = 8

// Applied returns the place up to which everything has been applied.
func (f *Follower) Applied() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.applied
}

// Polled takes the answer to a poll, and returns the lease.
func (f *Follower) Polled(sent time.Duration, head uint64) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.polls) < maxPolls {
		f.polls = append(f.polls, poll{sent, head})
	}
	return f.cover()
}

// Advance says that everything after one place up to another has been applied, and
// returns the lease. It returns false if the first place is not this follower's
// place: something is missing in between, and nothing has moved.
func (f *Follower) Advance(after, to uint64) (time.Duration, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if (after != f.applied || to < after) && !failpoint.Out(failpoint.Gap) {
		return f.lease, false
	}
	f.applied = to
	return f.cover(), true
}

// Reset says that a Reset that covers everything up to a place has been applied, and
// returns the lease.
func (f *Follower) Reset(head uint64) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied = head
	return f.cover()
}

// Drop removes the lease, and the lease that polls under way would give.
func (f *Follower) Drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lease, f.polls = 0, f.polls[:0]
}

func (f *Follower) cover() time.Duration {
	n := 0
	for n < len(f.polls) && (f.polls[n].head <= f.applied || failpoint.Out(failpoint.Head)) {
		f.lease = max(f.lease, f.polls[n].sent)
		n++
	}
	f.polls = append(f.polls[:0], f.polls[n:]...)
	return f.lease
}
