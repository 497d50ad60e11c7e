// Package kv has the nouns that every tier shares: keys and their hash, versions and the
// hybrid logical clock that stamps them, entries, deadlines, and the two clocks of a
// host.
//
// Inputs are bytes and clock readings, outputs are values. The package starts no
// goroutine, does no I/O except to read the clocks, and imports no other package of this
// module. It is not a place for helpers: a type belongs here only if at least two tiers
// exchange it.
package kv
