// Package sidecar puts a sidecar together, starts it and stops it. The command
// cachesidecar runs one, and a Go program can embed one.
//
// Input is a Config with the files that it names, and the calls of the embedding program.
// Output is what the host serves: the socket for apps, health and metrics over HTTP, and
// this host's part of the cluster.
//
// # A request's life
//
// An app's batch of requests arrives on its connection (unixsock, internal/rpc). The
// session (internal/session) reads the clock once for the batch. It decodes each request
// (internal/wire), looks up the namespace and hashes the key. The owner of the key
// answers. With one sidecar the owner is always this host. The engine (internal/engine)
// then appends the value from the store (l2/segment) to the connection's output, and one
// write sends all answers of the batch. None of this allocates or changes goroutine.
//
// # Use
//
// New starts nothing. Run serves until its context ends, answers the requests that it has
// accepted, and returns after all its goroutines. The methods Get, Set and so on answer
// the embedding program, from New on until Run has returned. Options, items and errors
// are types of package cachesidecar, which package client uses too.
//
// A host has one sidecar in its cluster, embedded or not.
//
// The package does not decide how a request is answered (package engine) or which host
// owns a key (package cluster).
package sidecar
