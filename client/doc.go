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
// A call that was surely not executed is tried once more, and so is a Get whose
// connection broke. No write is repeated after it may have been executed: it
// returns ErrTimeout, and its outcome is unknown.
//
// # Goroutines
//
// One a connection, which reads; all end with Close.
package client
