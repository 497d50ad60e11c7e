package peer

import (
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// How far ahead of this host's wall clock the versions of healthy hosts can be.
// Every version is a reading of some host's wall clock, or such a one and the
// stamps since then, however many hosts have passed it on. Two hosts that talk
// differ by one max_clock_skew, two that talk through a third one by two, and a
// flush's version may lie two above its host's reading: four in all. The second
// is for stamps beyond 4,096 in a millisecond: 4 million of them.
const (
	aheadSkews  = 4
	aheadStamps = time.Second
)

// Ahead says whether the newest version that a node tells of is further ahead
// than any can be: then nothing that it says with it counts. Whoever merges a
// version of another host, or keeps one, asks this first.
//
// The clock is read only for what is newer than what was let in before; where this
// host's clock is set back, what others have from before is let in all the same.
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

// AheadError says that a node's version clock is too far ahead.
type AheadError struct {
	Node    string
	Clock   kv.Version
	Ahead   time.Duration
	MaxSkew time.Duration
}

func (e *AheadError) Error() string {
	return fmt.Sprintf("the version clock of %s (%d) is %v ahead, and max_clock_skew of %v allows %v: set its wall clock right and start it anew, or remove it",
		e.Node, uint64(e.Clock), e.Ahead.Round(time.Millisecond), e.MaxSkew, aheadSkews*e.MaxSkew+aheadStamps)
}
