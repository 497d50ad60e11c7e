// Package slow keeps the slowest requests and loads of the last minutes, and where their
// time went.
//
// Inputs are calls that have ended, with their duration, and the parts of their time that
// the layers below note in the Trace of a context. Output is a list. Only calls that have
// waited are timed: a hit never comes here. A call below Threshold, or below all others of
// a full list, costs two comparisons.
//
// # Bounds
//
// A List keeps Most calls of each kind for at most Age: less than 200 KiB. A call leaves
// before that if Most slower ones have come since. A Trace keeps maxParts parts; the time of
// further ones is in no part.
//
// The package starts no goroutine, and all of it may be used concurrently. It is no trace of
// every call: calls between fast and slow leave nothing here.
package slow
