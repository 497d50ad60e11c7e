// Package segment is the store of the partitions that this host owns: keys and
// values in segments of memory that the garbage collector never looks at.
//
// # Layout
//
// One arena, outside the Go heap, is cut into segments of equal size. A shard
// owns the segments that it writes; free segments are one pool for all shards.
// Entries are appended to an open segment and never move but by eviction and
// compaction. One segment holds entries of one TTL class where it can, so that
// whole segments expire together.
//
//	arena    │ segment 0 │ segment 1 │ segment 2 │ …            │
//	segment  │ entry │ entry │ entry │ …          │ unused tail │
//	entry    │ header 24 B │ flags 4 B, if set │ key │ value │ pad to 4 B │
//
// The header, little-endian:
//
//	offset  bits  field
//	     0    64  version (kv.Version); zero never occurs
//	     8    40  deadline, ms of the boot clock; zero is never. The one field
//	              that TOUCH rewrites, under the lock
//	    13    16  generation of the partition's holding
//	    15     8  namespace slot
//	    16    32  value length, bytes
//	    20    16  key length, bytes
//	    22     8  marks: 1 client flags follow, 2 head of a chain, 4 stale,
//	              8 negative
//	    23     8  birth: in its namespace's queue of a quota
//
// A value that leaves less than half a segment to others becomes a chain of
// whole segments: its head holds header, key and the first part. A chain is
// evicted as one.
//
// # Index
//
// Per shard an extendible hash table (Fagin et al., 1979) of 4 KiB pages, also
// outside the heap. A page is 64 buckets of 8 words, a cache line each; a full
// bucket overflows into the next one. The word:
//
//	63…38  tag: the hash's top 26 bits = partition 14, home bucket 6, rest 6
//	37…36  hits since admission, saturating at 3
//	35…0   location: 1 + offset into the arena, in units of 4 bytes; a word of
//	       zero is an empty slot
//
// So a scan for some partitions, or for hot entries, reads index pages alone.
// Shards start with 8 to 15 pages each, so that they double at different sizes
// and the table's slack stays near its mean.
//
// # Keys of one hash
//
// Whoever knows a namespace's seed can compute keys of one hash, and keys whose
// hashes share any bits. So at most 8 words of a page have one tag, and 8
// entries one hash: the next one replaces the oldest. A page splits at 460
// words, and only while its shard has 230 words for each slot that the directory
// has at the page's depth: pages of random hashes are not twice as full as the
// mean (by 15 standard deviations). More than twice the shard's share of what
// the arena can hold does not count:
//
//	slots ≤ max(base, min(words, 2 × Size / 28 / shards) / 115)
//
// which for all directories together is less than Size/400. A page that may not
// split, or for which Size has no further page, overflows within itself up to
// 480 words, and then a new key replaces the one of least worth among 32 of the
// page. Either gives way to no other namespace while it has entries of its own
// there. Under one hold of a lock a page is read, split or emptied, 480 headers
// and hashes; a search for a key reads the headers of one tag, 8, or up to 178
// after pages of chosen hashes have merged.
//
// # Eviction
//
// S3-FIFO (Yang et al., SOSP 2023) at the granularity of segments, on the
// layout of Segcache (Yang et al., NSDI 2021): new entries go to the admission
// queue (10 % of a shard's segments); what was hit twice there moves to the
// main queue, the rest leaves a fingerprint in the ghost table; a key found
// there goes to the main queue at once. Main reinserts what was hit, one hit
// less, at most 3/4 of a segment, so that each eviction makes room. Segments
// that overwrites have left less than half alive are compacted before anything
// is evicted.
//
// # What is not served
//
// A negative entry says that the origin has no value. What Soften leaves, and
// for its namespace's grace what has expired, is there for GetStale alone, and
// absent to all else. All of them are entries in accounts, quotas and eviction.
//
// # Bounds
//
// Config.Size bounds everything: segments, index pages and ghosts; when the
// index grows, segments go. A store that is full evicts. A namespace over its
// quota loses its own oldest entries. A value that cannot be placed is refused
// with NoRoom or TooLarge.
//
// # Concurrency
//
// One plain mutex per shard, never held across I/O, and for no copy longer
// than 64 KiB: longer values are copied in and out while their chain is pinned,
// and a chain's bytes never change. Other entries are read under the lock
// alone, so a value of the same size is written over the one before. Run is the only goroutine; it
// gives back the memory of expired, flushed and outdated entries. The store
// does not load, does not route, and knows no clock but what each call brings.
package segment
