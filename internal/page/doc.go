// Package page draws the status page of a host: one HTML document for a person with a
// browser, and a stream of server-sent events that keeps it up to date.
//
// Input is a function that reads the host's statistics. Output is the page, complete
// without a script, and the same part of it again every two seconds. All viewers share one
// sample: a hundred requests a second cost as much as one. Names and messages of other
// hosts and of apps are escaped.
//
// The package starts no goroutine. A stream lives in the goroutine of its HTTP request and
// ends with it, or ten seconds after the buffers of its connection are full, since its client
// does not read. There are at most [MaxStreams].
//
// The page shows one host, and the other hosts as this one sees them. It changes nothing.
// It keeps no history but that of the last five minutes, while somebody watches.
package page
