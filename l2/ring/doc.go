// Package ring computes which node should own each partition: a table from partition to
// assigned owner that is a pure function of the members and their weights. All nodes that
// see the same members compute the same table, on every architecture, because the
// arithmetic is integer throughout.
//
// Owners are chosen by weighted rendezvous hashing (Thaler and Ravishankar, 1998; the
// logarithmic method for weights, Schindelhauer and Schomaker, 2005) under bounded load
// (Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2016).
// Partitions are taken in order. Each goes to the best-ranked node that has not yet
// reached 1.10 times its fair share.
//
// The input is a list of members, the output an immutable Table. The package starts no
// goroutine and does no I/O. It does not know which node owns a partition at present;
// that is the task of package ownership.
package ring
