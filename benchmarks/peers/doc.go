// Package peers runs the servers that are compared, each a process of its own
// on a Unix socket, and speaks their protocols: the sidecar, redis, memcached,
// and a Go server that sends back what it reads, which is the limit of what
// the others can reach. It runs several sidecars as one cluster, and nodes of
// libraries, which make the load on themselves.
//
// Inputs are a server's name and Options, outputs are a Server, its load
// protocols and its own counts. One goroutine a process waits for it; it ends
// with it. The package measures nothing.
package peers
