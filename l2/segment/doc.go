// Package segment stores the entries of the partitions that this host owns. Keys and
// values lie in segments of memory outside the Go heap, so the garbage collector never
// scans them.
//
// Inputs are keys, values and the clock readings that come with each call. Outputs are
// values and the versions that the store stamps. The store does not load, does not route,
// and reads no clock of its own.
//
// # Layout
//
// One arena, outside the Go heap, is cut into segments of equal size. A shard owns the
// segments that it writes; free segments form one pool for all shards. Entries are
// appended to an open segment. Only eviction and compaction move them. If possible, a
// segment has entries of one TTL class only, so that whole segments expire together.
//
//	arena    │ segment 0 │ segment 1 │ segment 2 │ …            │
//	segment  │ entry │ entry │ entry │ …          │ unused tail │
//	entry    │ header 24 B │ flags 4 B, if set │ key │ value │ pad to 4 B │
//
// The header, little-endian:
//
//	offset  bits  field
//	     0    64  version (kv.Version); zero never occurs
//	     8    40  deadline, ms of the boot clock; zero means never. The only field
//	              that TOUCH rewrites, under the lock
//	    13    16  generation of the partition's ownership
//	    15     8  namespace slot
//	    16    32  value length, bytes
//	    20    16  key length, bytes
//	    22     8  marks: 1 client flags follow, 2 head of a chain, 4 stale,
//	              8 negative, 16 read since it was written: the first read
//	              sets it, under the lock. Reads leave no time, which would
//	              take 4 bytes of every entry
//	    23     8  birth in the quota queue of the namespace
//
// If an entry is longer than half a segment, it becomes a chain of whole segments. The
// head of the chain has the header, the key and the first part of the value. A chain is
// evicted as a whole.
//
// # Index
//
// Each shard has an extendible hash table (Fagin et al., 1979) of 4 KiB pages, also
// outside the heap. A page is 64 buckets of 8 words; a bucket is one cache line. A full
// bucket overflows into the next one. The word:
//
//	63…38  tag: the hash's top 26 bits = partition 14, home bucket 6, rest 6
//	37…36  hits since admission, saturating at 3
//	35…0   location: 1 + offset into the arena, in units of 4 bytes; a word of
//	       zero is an empty slot
//
// So a scan for some partitions, or for hot entries, selects words by index pages alone.
// Shards start with 8 to 15 pages each, so that they double at different sizes and the
// slack of all tables together stays near its mean.
//
// # Bits of the hash
//
//	63…50  partition; what samples or lists keys by partitions selects words by it
//	63…38  tag of an index word; of it 49…44 home bucket
//	55…24  branch of the index's directory, from below as deep as it is
//	49…34  fingerprint of a ghost
//	33… 8  bucket of a ghost
//	23… 8  root of the index's directory
//	 7… 0  shard, from below as many as there are
//
// # Keys of one hash
//
// A client that knows the seed of a namespace can compute keys of one hash, and keys
// whose hashes share any bits. Therefore at most 8 words of a page have one tag, and at
// most 8 entries have one hash; the next entry replaces the oldest. A page splits at 460
// words, and only while its shard has 230 words for each slot that the directory has at
// the depth of the page. Pages of random hashes satisfy this: a page with twice the mean
// would be 15 standard deviations away. Words beyond twice the shard's share of what the
// arena can store do not count:
//
//	slots ≤ max(base, min(words, 2 × Size / 28 / shards) / 115)
//
// For all directories together this is less than Size/400. If a page may not split, or
// Size has no further page for it, the page overflows within itself up to 480 words.
// After that a new key replaces the entry of least worth among 32 of the page. Both
// replacements take an entry of the new key's own namespace before an entry of another
// namespace. While a lock is held, one page is read, split or emptied: 480 headers and
// hashes. A search for a key reads the headers of one tag: 8, or up to 178 after pages of
// chosen hashes have merged.
//
// # Eviction
//
// S3-FIFO (Yang et al., SOSP 2023) at the granularity of segments, on the layout of
// Segcache (Yang et al., NSDI 2021). New entries go to the admission queue. Entries that
// were hit twice there move to the main queue, and those that were hit once go round again
// without hits. The others leave a fingerprint in the ghost table, and a key found in that
// table goes to the main queue at once. The main queue reinserts entries that were hit,
// with one hit less. After 16 evictions that made no segment free, at least 1/4 of each
// evicted segment becomes free: of entries of one TTL class at most 21 segments are moved
// for one that becomes free. Segments of which overwrites have left less than half alive
// are compacted before anything is evicted.
//
// Each shard learns the admission queue's share of its segments, from 10 % on. A queue was
// too short if a key comes back that it dropped only lately, within as many drops as a
// tenth of the entries. For a key of admission the share grows by one entry; for a key of
// the main queue, which has a table of ghosts of its own for this, it shrinks by 1.5. It
// stays within 1 % and 90 %. The tables take about 4.5 and 0.5 bytes an entry.
//
// The shard's share is 10 % and what each namespace leans from that, weighed by its part of
// the hits that evictions have seen lately. So an app that writes to push the share moves
// it by its part of the hits at most, and by nothing if it only writes; the lessons of
// others can make up for that.
//
// # What is not served
//
// A negative entry says that the origin has no value. Only GetStale and Look return a
// value that Soften has left, and only GetStale returns an expired value during the grace
// of its namespace; for all other calls such a value is absent, except that Remove can
// compare its version. All three kinds count as entries in accounts, quotas and
// eviction.
//
// # Bounds
//
// Config.Size bounds everything: segments, index pages, ghosts and quota queues. When the
// index grows, the number of segments shrinks. A full store evicts. A namespace over its
// quota loses its own oldest entries. If a value cannot be placed, the write is refused
// with NoRoom or TooLarge.
//
// # Concurrency
//
// Each shard has one plain mutex. It is never held across I/O, nor for a copy longer than
// 64 KiB. Longer values are copied in and out without the lock while their chain is
// pinned; the bytes of a chain never change. Other entries are read under the lock only,
// so a value of the same size is written in place. Run is the only goroutine. It frees
// the memory of expired and flushed entries and of entries from an earlier ownership.
package segment
