// Package sidecar runs a sidecar inside a Go program. The command cachesidecar does the
// same for a whole host.
//
// New takes a Config; its zero value works. Run serves until its context ends, answers
// the requests that it has accepted, and returns after all its goroutines. New starts
// nothing. Get, Set, Delete and the other methods answer the embedding program, from New
// on until Run has returned. Their options, items and errors are types of package
// cachesidecar, which package client uses too. The examples show an embedded sidecar, one
// that serves other programs too, and a namespace with an origin. Apply puts another
// Config into effect while the sidecar runs.
//
// All methods may be called concurrently. After Run they return ErrClosed.
//
// A host has one sidecar in its cluster, embedded or not. Without Config.Bind and
// Config.Join the sidecar is a cluster of one.
//
// # A request's life
//
// An app's batch of requests arrives on its connection (unixsock, internal/rpc/server). The
// session (internal/session) reads the clock once for the batch. It decodes each request
// (internal/wire), looks up the namespace and hashes the key. The owner of the key
// answers. With one sidecar the owner is always this host. The engine (internal/engine)
// then appends the value from the store (l2/segment) to the connection's output, and one
// write sends all answers of the batch. None of this allocates or changes goroutine.
//
// The package puts the parts together. It does not decide how a request is answered
// (package engine) or which host owns a key (package cluster).
package sidecar
