// Package invalidation keeps copies from being served after what they are
// copies of has changed: the ledger of what has changed last.
//
// Inputs are notes of changes and the question whether a copy may be served or
// kept; the output is yes or no. It starts no goroutine, does no I/O, and
// imports neither the network nor the tiers that ask it.
package invalidation
