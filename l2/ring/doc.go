// Package ring says who should own what: a table from partition to owner that
// is a pure function of the members and their weights. All nodes that see the
// same members compute the same table, on every architecture: the arithmetic
// is integer throughout.
//
// Owners are chosen by weighted rendezvous hashing (Thaler and Ravishankar,
// 1998; the logarithmic method for weights, Schindelhauer and Schomaker, 2005)
// under bounded load (Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing
// with Bounded Loads", 2016): partitions are taken in order, and each goes to
// the best-ranked node that has not yet reached 1.10 times its fair share.
//
// Input is a list of members, output an immutable Table. It starts no
// goroutine, does no I/O, and does not know who in fact holds a partition: that
// is package holding.
package ring
