// Package shm is the shared hot cache: memory that the sidecar writes, and that apps on the
// host map and read, without a system call.
//
// Its inputs are the entries that the sidecar publishes, and what it learns: changes of
// keys, floors of partitions and namespaces, and how far it knows what each owner has
// accepted. Its outputs are values that a Reader may serve. Writer and Reader share no lock:
// the memory may be read while it changes, and its reader trusts nothing in it.
//
// # The region
//
// A region is one file. All numbers are little-endian. Words of 8 bytes that change are
// aligned and stored atomically.
//
//	at       size         what
//	0        4,096        header: magic, layout, size, buckets, lines, epoch, id, bound;
//	                      state at 128, counter at 192, tail at 256
//	4,096    256 × 128    namespaces by slot: incarnation, generation, bound, seed, name
//	36,864   256 × 8      certified, by owner
//	40,960   16,384 × 8   generations, by partition
//	172,032  buckets × 64 index: 8 slots a bucket, each a tag (16 bits) and a position (48)
//	behind   lines × 64   log: a ring of entries
//
// A position counts lines and never repeats; its place in the log is its remainder. An entry
// begins on a line, does not wrap around, and names its own position. Bytes of positions
// below tail may be overwritten at any time.
//
// # A read
//
// The reader looks its key up in the index, copies the entry, and only then asks whether it
// may be served:
//
//  1. certified of the entry's owner is not longer ago than the bound. It is loaded first:
//     it is raised only after what was learned until then stands in the words below.
//  2. The generations of the entry's namespace and partition are those in the entry, the
//     region is serving, and the entry has not expired.
//  3. The index still names the position, and tail is not above it.
//  4. The checksum of what was copied is right.
//
// # Publishing and withdrawing
//
// The publisher takes the generations before it looks at anything else. It writes the entry
// into the log, takes the bucket's lock, asks once more whether the value is current, and
// puts the position into the index. A change is noted first and then withdrawn, under the
// same lock. So either the question finds the note, or the withdrawal finds the entry.
//
// # Bounds
//
// A region never grows. New entries overwrite the oldest ones. A publisher that finds
// another one at work gives up.
//
// # Several regions
//
// A process that maps a region sees all names and values in it. So a Writer has several regions, and
// an entry is published in one of them; all other calls concern all. What is taken away by a
// withdrawal, with its namespace, or with its region, is zeroed, and so is what the tail has
// left: bytes in the log belong to entries that the index has.
//
// The package starts no goroutines. It is not for values above 16 KiB, and it does not know
// how a descriptor gets from the sidecar to an app, or who may have which region.
package shm
