// Package sidecar puts the tiers together: it is what the command runs, and
// what a Go program embeds.
//
// # A request's life
//
// An app's batch of requests arrives on its connection (unixsock, rpc). The
// clock is read once. Each request is decoded (wire), its namespace looked up,
// its key hashed; the key's owner answers. With one sidecar the owner is
// always this host, and the answer comes from its store (l2/segment), is
// appended to the connection's output in place, and leaves in one write with
// the rest of the batch. None of this allocates or changes goroutine.
//
// # Use
//
//	s, err := sidecar.New(sidecar.Config{L2Size: 1 << 30})
//	go s.Run(ctx)
//	err = s.Set(ctx, "users", []byte("42"), value, sidecar.SetOptions{})
//	v, err := s.Get(ctx, "users", []byte("42"))
//
// New starts nothing. Run serves until its context ends, answers what has been
// accepted, and returns after all its goroutines have. A host has one sidecar
// in its cluster, embedded or not.
package sidecar
