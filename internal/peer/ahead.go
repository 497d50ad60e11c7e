package peer

import (
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Limits of how far the versions of healthy hosts can be ahead of this host's wall
// clock. Every version is a reading of some host's wall clock, plus the stamps since
// then; the number of hosts that have passed the version on does not matter. Two hosts
// that talk to each other differ by at most one max_clock_skew. Two hosts that talk
// through a third host differ by at most two. A flush's version may lie two above its
// host's reading. The sum is four. The additional second covers stamps beyond 4,096 in
// one millisecond: 4 million of them.
const (
	aheadSkews  = 4
	aheadStamps = time.Second
)

// Ahead returns an *AheadError if newest, the newest version in a node's message, is
// further ahead than any valid version can be. The caller must then ignore the whole
// message. Call Ahead before a version from another host is merged or kept.
//
// Ahead reads the clock only if the version is newer than all versions accepted before.
// If this host's clock is set back, versions up to the earlier limit are still
// accepted. It is safe for concurrent use.
func (id *Identity) Ahead(node kv.NodeID, newest uint64) error {
	most := aheadSkews*id.MaxSkew + aheadStamps
	v := kv.Version(newest)
	limit := id.limit.Load()
	if v+kv.FirstVersionAt(most.Milliseconds()/2) <= kv.Version(limit) && v <= kv.Version(limit) {
		return nil
	}
	now := id.Clock.Read().Wall
	next := max(limit, uint64(kv.FirstVersionAt(now+most.Milliseconds())))
	for !id.limit.CompareAndSwap(limit, next) {
		limit = id.limit.Load()
		next = max(limit, next)
	}
	if newest <= next {
		return nil
	}
	return &AheadError{string(node), v, v.Wall().Sub(time.UnixMilli(now)), id.MaxSkew}
}

// AheadError means that a node's version clock is too far ahead.
type AheadError struct {
	Node    string
	Clock   kv.Version
	Ahead   time.Duration
	MaxSkew time.Duration
}

func (e *AheadError) Error() string {
	return fmt.Sprintf("the version clock of %s (%d) is %v ahead, and max_clock_skew of %v allows %v: "+
		"set its wall clock right and start it anew, or remove it",
		e.Node, uint64(e.Clock), e.Ahead.Round(time.Millisecond), e.MaxSkew, aheadSkews*e.MaxSkew+aheadStamps)
}
