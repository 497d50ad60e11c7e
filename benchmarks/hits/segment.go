package hits

import (
	"encoding/binary"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// segmentCache drives the store as the sidecar does: with a TTL, and with the value's
// bytes copied in and out.
type segmentCache struct {
	store *segment.Store
	bytes bool
	value []byte
	buf   []byte
	key   [keySize]byte
	now   kv.Moment
}

// If entries are counted, all entries have one size and a segment has room for a whole
// number of them, so the capacity is exact. A shard has at least 128 segments, as in the
// product, as long as each segment has room for four entries.
const (
	unitValue = 12
	unitEntry = 24 + keySize + unitValue // header, key, value
	segments  = 128
	perLeast  = 4 // entries per segment

	// A TTL at the edge of two of the store's classes would depend on how deadlines are rounded.
	ttl = 50 * time.Minute
)

// newSegment returns a segment store. If bytes are counted, the other policies pay for
// keys and values only; the store also pays for its headers, index and ghosts, because
// size is what a user gives it.
func newSegment(size int64, bytes bool) (Cache, error) {
	cfg := segment.Config{Size: size, Versions: kv.NewHLC(1)}
	if !bytes {
		per := max(perLeast, size/segments)
		cfg = segment.Config{Segments: int(size / per), SegmentSize: int(per) * unitEntry, Shards: 1, Versions: kv.NewHLC(1)}
	}
	s, err := segment.New(cfg)
	if err != nil {
		return Cache{}, err
	}
	s.SetNamespace(0, 1, 0, segment.Limits{})
	c := &segmentCache{store: s, bytes: bytes, value: make([]byte, unitValue), now: kv.Moment{Wall: 1, Boot: time.Hour}}
	return Cache{c.access, func() { _ = s.Close() }}, nil
}

func (c *segmentCache) access(key uint64, size uint32) bool {
	binary.LittleEndian.PutUint64(c.key[:], key)
	k := kv.Key{Hash: kv.HashKey(1, c.key[:]), Bytes: c.key[:]}
	c.now.Boot += time.Microsecond
	var ok bool
	if c.buf, _, ok = c.store.Get(c.buf[:0], k, segment.NoLimit, c.now.Boot); ok {
		return true
	}
	if c.bytes {
		if int64(size) > int64(c.store.Config().MaxValue) {
			return false // the store would refuse the value
		}
		if int(size) > cap(c.value) {
			c.value = make([]byte, size)
		}
		c.value = c.value[:size]
	}
	c.store.Put(k, segment.Write{Value: c.value, Facts: kv.Facts{Deadline: kv.After(c.now.Boot, ttl)}}, c.now)
	return false
}
