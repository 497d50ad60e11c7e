// Package telemetry reports on a host: the answer to STATS, the metrics for /metrics, and in words
// whether the host is well, and what is wrong with it. The words are the same ones in health, stats,
// top, /readyz and on the status page, so that one state has one name. They come from statistics
// alone, of any host: the statistics say whether a host is ready.
//
// Input is the counters of the engine, of the socket's server and of the host's keys, the
// Go runtime and, on Linux, procfs. Output is a cachesidecar.Stats, and a Prometheus registry
// that reads the counters when it is gathered.
//
// The package starts no goroutine. Run counts what is recent until its context ends. The other
// methods may be called concurrently. While metrics
// are gathered the store is kept open; once it is closed they are only those of the
// process.
//
// The package does not count what it reports, except the duration of batches. It does not
// serve HTTP (package httpd) and writes no log (package logs).
package telemetry
