// Package loader has the parts that a cache's owner needs to load a missing value only
// once, and to protect the origin of the values. The parts are independent of each
// other: only values pass between them. The owner of a namespace combines them.
//
//	Keys       which keys may be requested at all
//	Loads      at most one load per key; all its callers get the result
//	Leases     the same if the app loads: one caller gets a token, the others its fill
//	Policy     lifetimes, and the use of values after their end
//	Guard      concurrency, rate, breaker and retries before one origin
//	Known      the key filter: a Bloom filter of the existing keys
//	Rebuilder  keeps a Known filled and recent
//	Lister     an origin that can list its keys: for Known, and for loads at the start
//	Writer     an origin that accepts changes: write-through
//
// Inputs are keys, versions stamped by the caller, an origin (Source), and invalidations
// (Detach, Known.Add). Outputs are values, each with the version of the moment at which
// its load began. A value that must not be kept is marked (Result.Uncached). This mark
// is not sufficient: an invalidation may come after it, so the caller must check again
// when it stores the value.
//
// Goroutines: Loads runs one goroutine per load in progress, and Leases has one timer
// per token. Both stop at Close, which waits for them. The other parts start no
// goroutine.
//
// Package loader is not a cache. It keeps no value after a load, knows no other host,
// does not talk to origins itself (the packages below it do), and reads no
// configuration.
package loader
