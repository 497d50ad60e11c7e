// Package namespaces keeps the namespaces of a host: of each one its settings, its slot
// in the store, its origin, its key filter, its write-through and its counters.
//
// Input is the settings of the configured namespaces, the names that requests bring, and
// the flushes that the cluster remembers. Output is the Namespace of a name, pinned while
// a caller uses it, and the namespaces' parts of STATS.
//
// A configured namespace has its slot for good. Any other name gets a slot with its first
// write, and loses it when it is empty and another name needs one. Lookups take no lock.
//
// CheckOrigins uses a goroutine per origin, which ends with it. Other goroutines belong
// to the callers: each write-through runs on one of package engine, and each key filter
// is built on one of package sidecar. Close waits for the write-throughs under way.
//
// The package does not answer requests (package engine), load values (package loader) or
// store entries (package l2/segment).
package namespaces
