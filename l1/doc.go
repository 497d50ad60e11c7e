// Package l1 is a bounded cache of hot copies: entries that other hosts own and
// that apps on this host have read lately. What a host owns itself is served by
// its L2 and not kept twice.
//
// Inputs are copies, each with what its owner vouched for; the output is a copy
// that was put in under the same key, or nothing. Whether a copy may still be
// served is not decided here: who reads asks the ledger, the lease and the
// clock about what it got, after it got it. It does not talk to anybody.
//
// Inside is ristretto (TinyLFU admission, Einziger et al., 2017), hidden, since
// it promises less than one would think: a set takes effect later or not at
// all, an accepted second set of a key can be lost, a deleted one can come back
// for a moment. So nothing here is relied on but this: what Get returns was
// once given to Put, under this very key. In front of it are the copies that
// were read last (front.go).
//
// Ristretto's goroutine is the only one; Close ends it.
package l1
