// Package keyfilter knows which keys an origin may have: Filter is a Bloom filter of the
// existing keys that rotates, and Rebuilder keeps it filled and recent.
//
// Inputs are a loader.Lister, which lists all keys of an origin, and the keys that are
// written (Filter.Add). Output is whether a key may exist.
//
// A Rebuilder has one goroutine while it runs. Filter starts none.
//
// The package loads no values (package loader does).
package keyfilter
