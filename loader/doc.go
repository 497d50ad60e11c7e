// Package loader has what a cache's owner needs to fetch a missing value once,
// and to spare the origin it comes from. Its parts know nothing of one another
// beyond the values that pass between them; whoever owns a namespace puts them
// together.
//
//	Keys       which keys may be asked for at all
//	Loads      at most one load per key; all who ask get its result
//	Leases     the same where the app loads: one gets a token, the rest its fill
//	Policy     lifetimes, and what to do with a value that has had its time
//	Guard      concurrency, rate, breaker and retries before one origin
//	Known      a Bloom filter of the keys that exist
//	Rebuilder  keeps a Known filled and young
//	Lister     an origin that says which keys it has: for Known, and to load them early
//	Writer     an origin that takes changes: write-through
//
// Inputs are keys, versions that the caller stamps, an origin (Source) and what
// has been invalidated (Detach, Known.Add); outputs are values with the version
// of the moment at which their load began. Every value that may not be kept
// says so (Result.Uncached), but only the caller's own check at its store is
// the proof: an invalidation may come between the two.
//
// Goroutines: Loads runs one per load under way, Leases one timer per token;
// both end with Close, which waits for them. The other parts have none.
//
// It is not a cache, keeps no value beyond a load, knows no other host, speaks
// to no origin itself (see the packages below it), and reads no configuration.
package loader
