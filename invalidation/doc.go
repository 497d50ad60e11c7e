// Package invalidation keeps copies from being served after what they are
// copies of has changed: the ledger of what has changed last, the log of it that
// others follow, and the holds of what is not to be loaded into the cache yet.
//
// Inputs are notes of changes and the question whether a copy, or a load, may be
// served or kept; the output is yes or no. It starts no goroutine, does no I/O, and
// imports neither the network nor the tiers that ask it.
package invalidation
