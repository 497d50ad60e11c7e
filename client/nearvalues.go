package client

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/invalidation"
)

// stream is a sequence of events from the sidecar without a gap. A value that was kept
// under another stream is not served.
type stream struct {
	through kv.Process   // the sidecar's process
	lease   atomic.Int64 // boot clock up to which all events are applied; zero: not yet
	behind  atomic.Int64 // how far the sidecar itself may lag, in nanoseconds
	log     invalidation.Follower
}

// kept is a value that the sidecar has returned. It is immutable.
type kept struct {
	hash        kv.Hash
	namespace   kv.NamespaceID
	key         string
	value       []byte
	facts       kv.Facts
	asOf        kv.Version    // the version as of which the owner attested the value
	requestedAt time.Duration // when the value was requested, on the boot clock
	stream      *stream       // the stream that was followed at that time

	visited    atomic.Bool // since the hand last passed
	prev, next *kept       // under the shard's lock; towards newest, oldest
}

// keptOverhead is the memory of one value beside its key and its bytes, in bytes: the struct and its place in a map.
const keptOverhead = 208

func (k *kept) cost() int64 { return int64(len(k.key)+len(k.value)) + keptOverhead }

// keptValues keeps values up to a number of bytes. It evicts by SIEVE (Zhang et al., NSDI 2024): a hand moves from
// the oldest value to the newest, and removes the first value that was not read since the hand last passed it.
type keptValues struct {
	limit  int64 // bytes per shard
	shards [keptShards]keptShard
}

// keptShards is a power of two.
const keptShards = 16

type keptShard struct {
	mu             sync.RWMutex
	byHash         map[kv.Hash]*kept
	newest, oldest *kept
	hand           *kept // nil: at the oldest
	bytes          int64
}

func newKeptValues(bytes int64) *keptValues {
	v := &keptValues{limit: bytes / keptShards}
	for i := range v.shards {
		v.shards[i].byHash = map[kv.Hash]*kept{}
	}
	return v
}

// The low bits of a hash choose the ledger's slot, the top bits the partition.
func (values *keptValues) shard(h kv.Hash) *keptShard { return &values.shards[h>>32&(keptShards-1)] }

func (values *keptValues) get(k kv.Key) *kept {
	s := values.shard(k.Hash)
	s.mu.RLock()
	got := s.byHash[k.Hash]
	s.mu.RUnlock()
	if got == nil || got.namespace != k.Namespace || got.key != string(k.Bytes) {
		return nil
	}
	if !got.visited.Load() {
		got.visited.Store(true)
	}
	return got
}

// put keeps a value, and evicts others until the shard is within its limit. near.keep bounds the size of
// a value: maxNearValue, and a hundredth of NearCache.Bytes.
func (values *keptValues) put(n *kept) {
	s := values.shard(n.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.byHash[n.hash]; old != nil {
		s.remove(old)
	}
	s.byHash[n.hash] = n
	if n.next = s.newest; n.next != nil {
		n.next.prev = n
	} else {
		s.oldest = n
	}
	s.newest = n
	for s.bytes += n.cost(); s.bytes > values.limit; {
		s.evict()
	}
}

// outdate drops a key's value if the value was attested before version. This only saves
// memory: get decides whether a value may be served.
func (values *keptValues) outdate(h kv.Hash, version kv.Version) {
	s := values.shard(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.byHash[h]; old != nil && old.asOf < version {
		s.remove(old)
	}
}

// clear drops all values.
func (values *keptValues) clear() {
	for i := range values.shards {
		s := &values.shards[i]
		s.mu.Lock()
		s.byHash, s.newest, s.oldest, s.hand, s.bytes = map[kv.Hash]*kept{}, nil, nil, nil, 0
		s.mu.Unlock()
	}
}

func (values *keptValues) size() (entries, bytes int64) {
	for i := range values.shards {
		s := &values.shards[i]
		s.mu.RLock()
		entries += int64(len(s.byHash))
		bytes += s.bytes
		s.mu.RUnlock()
	}
	return entries, bytes
}

// evict removes one value. The shard is locked and not empty.
func (shard *keptShard) evict() {
	at := shard.hand
	for {
		if at == nil {
			at = shard.oldest
		}
		if !at.visited.Swap(false) {
			break
		}
		at = at.prev
	}
	shard.hand = at
	shard.remove(at)
}

// remove removes k, and moves the hand on if it is at k. The shard is locked.
func (shard *keptShard) remove(k *kept) {
	if shard.hand == k {
		shard.hand = k.prev
	}
	if k.prev != nil {
		k.prev.next = k.next
	} else {
		shard.newest = k.next
	}
	if k.next != nil {
		k.next.prev = k.prev
	} else {
		shard.oldest = k.prev
	}
	shard.bytes -= k.cost()
	delete(shard.byHash, k.hash)
}
