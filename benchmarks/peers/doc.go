// Package peers runs the servers that are compared, each in a process of its own on a
// Unix socket, and speaks their protocols: the sidecar, redis, memcached, and a Go server
// that echoes its input, which is the upper limit for the others. It also runs several
// sidecars as one cluster, and nodes of libraries, which make the load on themselves.
//
// Inputs are a server's name and Options. Outputs are a Server, its load protocols and
// its own counts. One goroutine per process waits for it and ends with it. The package
// measures nothing.
package peers
