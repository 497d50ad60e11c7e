// Package client talks to the sidecar on this host.
//
// Dial connects. Most apps need Get, Set, Delete and GetOrLoad; the examples show them in
// this order. InNamespace gives a view of the client with another namespace. Options,
// items and errors are types of package cachesidecar, which package sidecar uses too.
//
// A Client is safe for concurrent use; one Client per process is enough. Its calls share
// a few connections, and concurrent calls share system calls. A call without a deadline
// ends after Config.RequestTimeout. If a connection is lost, the next call connects
// again, after a pause that grows and has jitter. Until then calls fail fast with
// ErrUnavailable.
//
// # Repeats
//
// The client tries a call once more if the call was surely not executed, and a Get or a
// Lease also if its connection broke. It never repeats a write that may have been
// executed: such a write returns ErrTimeout, and its outcome is unknown.
//
// # Loads
//
// GetOrLoad loads a missing value, once in the whole cluster. If the key changes during
// the load, the loaded value is not kept. Lease, Fill and Abandon are the parts of
// GetOrLoad, for loads that are not one function of one key.
//
// # Near cache
//
// With Config.NearCache the client keeps values in this process, and follows the sidecar
// to learn which of them are outdated. A hit takes a tenth of a microsecond, not a round
// trip. A value from the near cache was current less than max_staleness plus
// NearCache.Bound ago, where max_staleness is the smallest one of the sidecars; the
// client usually hears of a change within milliseconds. A read after a write of the same
// Client sees that write. The option Fresh asks the key's owner. If the sidecar cannot be
// reached, or sends nothing for as long as the bound, the near cache serves nothing. This
// also holds for a process that was stopped and goes on.
//
// # Goroutines
//
// There is one goroutine per connection, which reads; short ones that write what several
// callers ask next; one that follows the sidecar for the near cache; and one per key that
// GetOrLoad or Lease asks for. All of them end with Close, which waits for functions that
// load. Watch runs on its caller's goroutine.
package client
