// Package engine answers requests: from the entries of this host, from its copies, from
// the owner of a key, or from the origin.
//
// Input is requests of sessions, of the embedding program and of other sidecars, each
// with its deadline; changes that the store reports; and what the cluster's node reports
// about ownerships and the logs of other hosts. Output is the reply to each request, and
// the effects of a change: an entry in the store, an event in this host's log, a note in
// the ledger, an event in the stream for WATCH.
//
// Execute, Local.Value and Tokens.Grant answer in place and wait neither for another host
// nor for an origin. The reply MOVED sends a request the slow way: ServeNow for apps,
// ServePeer for other sidecars. Both wait on the caller's goroutine, at most until the
// deadline. A GET or a LEASE may wait without one (StartWait).
//
// Engine itself is the way of a request: here, at the owner, at the origin. Its parts stand on deps, which has the
// tables of this host and tells which process owns a key. Each uses the parts that its fields name:
//
//	Deadlines  the time of a request
//	Watches    the stream of changes for WATCH
//	Barriers   what lagging replicas may return is not kept
//	Changes    the changes made here and heard of; removals of all
//	Delegate   what the node tells of ownerships and of other hosts' logs
//	Remote     keys of other hosts: copies, and calls to their owners
//	Loads      loads from origins; what is cached, for their audits
//	Tokens     loads by apps
//	Local      keys of this host
//	Acks       the wait until all hosts have applied a write
//	Regions    the shared memory of this host's apps
//	Pressure   how near this host is to what it can bear
//	Admin      requests of operators: about hosts, about what this one stores and does, VERIFY, DRAIN, RELOAD
//
// All methods may be called concurrently. A request of many keys, or to many hosts, uses
// goroutines that end with it. A write-through uses one that may outlive its request; it
// ends with the write and its settling, or when the namespace table closes.
//
// The package does not read connections (package session), decide ownership (package
// cluster), move entries to a new owner (package handoff) or check rights (package
// access).
package engine
