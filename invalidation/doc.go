// Package invalidation keeps copies from being served after the entries they copy
// have changed. It has three parts: the ledger of the last changes, the log of
// changes that followers read (with the codec of its events), and the load barriers,
// which keep loads out of the cache for a while.
//
// Inputs are notes of changes, and the question whether a copy or a load may be
// served or kept; the output is yes or no. The package starts no goroutine, does no
// I/O, and imports neither the network nor the tiers that ask it.
package invalidation
