// Package client talks to the sidecar on this host.
//
//	c, err := client.Dial(ctx, client.Config{})
//	err = c.Set(ctx, "user:42", value, client.SetOptions{TTL: time.Minute})
//	item, err := c.Get(ctx, "user:42")
//	if errors.Is(err, client.ErrNotFound) { … }
//
// A Client is safe for concurrent use; one a process is enough. Its calls share
// a few connections, and calls that are made at the same time share system
// calls. A lost connection is made again on the next call, after a pause that
// grows and has jitter; until then calls fail fast with ErrUnavailable.
//
// # Repeats
//
// A call that was surely not executed is tried once more, and so is a Get or a
// Lease whose connection broke. No write is repeated after it may have been executed: it
// returns ErrTimeout, and its outcome is unknown.
//
// # Loads
//
// GetOrLoad loads what is missing, once in the whole cluster, and what changes
// meanwhile is not kept as it was before. Lease, Fill and Abandon are its parts,
// for loads that are not one function of one key.
//
// # Near cache
//
// With Config.NearCache the client keeps values in this process, and follows the
// sidecar to know when they are outdated. A hit takes a tenth of a microsecond,
// not a round trip. What it returns was current less than the sidecar's smallest
// max_staleness and NearCache.Bound ago, together; a change is usually heard of
// within milliseconds. A read after a write of the same Client sees it, and the
// option Fresh asks the key's owner. Where the sidecar cannot be reached, or says
// nothing for as long as the bound, nothing is served from here: so too in a
// process that goes on after a stop.
//
// # Goroutines
//
// One a connection, which reads, one that follows the sidecar for the near cache,
// and one a key that GetOrLoad or Lease asks for; all end with Close, which waits
// for functions that load. Watch runs on its caller's.
package client
