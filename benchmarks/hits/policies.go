// Package hits replays traces against cache policies: plain LRU, ristretto, otter, and
// the segment store through its public API. Every request is a get; a miss is followed by
// a set. The warm-up counts too.
//
// Inputs are requests, a policy and a size. Output is a number of hits. A replay is one
// goroutine, plus those that ristretto starts and ends itself. Time influences only
// ristretto's result. Chance does not influence the results of LRU and the segment store.
package hits

import (
	"context"
	"fmt"

	"github.com/cachesidecar/cachesidecar/benchmarks/trace"
)

// Policy makes caches for size entries or, if bytes is set, for size bytes of keys and
// values.
type Policy struct {
	Name string
	// Random means that replays differ from each other.
	Random bool
	// Alone means that the policy works in goroutines of its own and drops the updates
	// that they are too slow for. Nothing else may run during the replay.
	Alone bool
	New   func(size int64, bytes bool) (Cache, error)
}

// Cache is one cache under replay.
type Cache struct {
	// Access gets a key. If it is missing, Access sets a value of so many bytes. It reports
	// whether the key was there.
	Access func(key uint64, length uint32) bool
	Close  func()
}

// The names of the policies that are compared with each other.
const (
	LRU     = "LRU"
	Segment = "l2/segment"
)

// Policies are the compared policies, in the order of the tables.
var Policies = []Policy{
	{LRU, false, false, newLRU},
	{"ristretto", true, true, newRistretto},
	{"otter", true, false, newOtter},
	{Segment, false, false, newSegment},
}

// keySize is the assumed size of a key in bytes. Traces do not contain it.
const keySize = 8

// Replay makes a cache and returns how many of the requests hit it.
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
