// Package namespaces keeps the namespaces of a host: of each one its settings, its slot
// in the store, its origin and its counters. Each feature is one type in one file: the
// audit, the warming, the write-through.
//
// Input is the settings of the configured namespaces, the names that requests bring, and
// the flushes that the cluster remembers. Output is the Namespace of a name, pinned while
// a caller uses it, and the namespaces' parts of STATS.
//
// A configured namespace has its slot for good. Any other name gets a slot with its first
// write, and loses it when it is empty and another name needs one. Lookups take no lock.
//
// AskOrigins uses a goroutine per origin, which ends with it. Each write-through has one, which may
// outlive its request; Close waits for those under way. What Run and CompareHits do belongs to the
// callers, as do Runners.
//
// The package does not answer requests (package engine), open origins (package origin), filter keys
// (package keyfilter) or store entries (package l2/segment). What a feature needs of the host that it
// runs on, as a read or an ownership, is a function in Parts.
package namespaces
