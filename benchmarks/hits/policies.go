// Package hits replays traces against cache policies: plain LRU, ristretto,
// otter, and the segment store through its public API. Every request is a get;
// a miss is followed by a set. No warm-up is cut off.
//
// Inputs are requests, a policy and a size, output is a number of hits. A
// replay is one goroutine, but for what ristretto starts and ends itself. Time
// plays no part in the result but in ristretto's, nor does chance in that of
// LRU and the segment store.
package hits

import (
	"context"
	"fmt"

	"github.com/cachesidecar/cachesidecar/benchmarks/trace"
)

// Policy makes caches that hold size entries, or size bytes of keys and values
// where bytes is set.
type Policy struct {
	Name string
	// Random says that its replays differ.
	Random bool
	// Alone says that it works in goroutines of its own beside the replay, and
	// forgets what they do not get round to: nothing else may run meanwhile.
	Alone bool
	New   func(size int64, bytes bool) (Cache, error)
}

// Cache is one cache under replay.
type Cache interface {
	// Access gets a key and, where it is missing, sets a value of size bytes.
	// It says whether the key was there.
	Access(key uint64, size uint32) bool
	Close()
}

// Names of the policies that are compared with each other.
const (
	LRU     = "LRU"
	Segment = "l2/segment"
)

// Policies are what is compared, in the order of the tables.
var Policies = []Policy{
	{LRU, false, false, newLRU},
	{"ristretto", true, true, newRistretto},
	{"otter", true, false, newOtter},
	{Segment, false, false, newSegment},
}

// keySize is what a key counts where bytes are counted. Traces do not tell.
const keySize = 8

// Replay makes a cache and says how many of the requests it hits.
func Replay(ctx context.Context, p Policy, requests []trace.Request, size int64, bytes bool) (int64, error) {
	c, err := p.New(size, bytes)
	if err != nil {
		return 0, fmt.Errorf("%s of %d: %w", p.Name, size, err)
	}
	defer c.Close()
	hits := int64(0)
	for i, q := range requests {
		if i%(1<<16) == 0 && ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if c.Access(q.Key, q.Size) {
			hits++
		}
	}
	return hits, nil
}
