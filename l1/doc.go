// Package l1 is a bounded cache of hot copies: entries that other hosts own and that apps
// on this host have read lately. The entries that this host owns are in its L2 and are
// not kept twice.
//
// Inputs are copies, each with what its owner attested. The output is a copy that was put
// under the same key, or nothing. Package l1 does not decide whether a copy may still be
// served: the caller checks the ledger, the lease and the clock after it got the copy.
// The package talks to no other host.
//
// Inside is ristretto (TinyLFU admission, Einziger et al., 2017). It is hidden because it
// promises less than its API suggests: a set takes effect later or not at all, an
// accepted second set of a key can be lost, and a deleted copy can come back for a
// moment. So callers may rely on one thing only: a copy that Get returns was once given
// to Put, under this very key. In front of ristretto are the copies that were read last
// (front.go).
//
// The only goroutine is ristretto's; Close ends it.
package l1
