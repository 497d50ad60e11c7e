// Package flight lets many callers share one piece of work for a key: Loads for loads from
// an origin, Leases for loads by apps. Table has what all kinds of flights share; package
// engine uses it for its calls to the owners of keys.
//
// Inputs are keys, versions that the caller stamps, functions that load, and changes of
// keys (Invalidate). Outputs are values, each with the version of the moment at which its
// load began. A value that must not be kept is marked (Result.NoStore). This mark is not
// sufficient: a change may come after it, so the caller must check again when it stores
// the value.
//
// Loads runs one goroutine per load in progress, and Leases has one timer per token. Both
// stop at Close, which waits for them.
//
// The package is not a cache: it keeps no value after a load. It does not talk to origins
// (package loader does) and knows no other host.
package flight
