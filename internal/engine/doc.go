// Package engine answers requests: from the entries of this host, from its copies, from
// the owner of a key, or from the origin.
//
// Input is requests of sessions, of the embedding program and of other sidecars, each
// with its deadline; changes that the store reports; and what the cluster's node reports
// about ownerships and the logs of other hosts. Output is the reply to each request, and
// the effects of a change: an entry in the store, an event in this host's log, a note in
// the ledger, an event in the stream for WATCH.
//
// Execute, Reads.Value and Tokens.Grant answer in place and wait neither for another host
// nor for an origin. The reply MOVED sends a request the slow way: ServeNow for apps,
// ServePeer for other sidecars. Both wait on the caller's goroutine, at most until the
// deadline.
//
// The engine has one part for each duty, in a file of its own:
//
//	Reads, Writes    what this host owns
//	Looks            METAGET, which reads what this host owns, and may change it
//	Copies           copies of what other hosts own
//	Calls, Forwarder calls to the owners of keys, each made once for all readers
//	Loads, Tokens    loads from origins, loads by apps
//	writeThrough     writes at the origin before the cache
//	keys, many       the way of a request of one key, of many keys
//	Changes, Tiers   the changes made here, the changes heard from other hosts
//	Flushes          the removal of all keys
//	Barriers         load barriers
//	Watches          the stream of changes for WATCH
//	Acks             the wait until all hosts have applied a write
//	Owners           the owner of a key, and the wait for one
//	Deadlines        the time of a request
//	Hosts            requests about hosts
//	warm             the load of a list of keys at the start
//
// All methods may be called concurrently. A request of many keys, or to many hosts, uses
// goroutines that end with it. A write-through uses one that may outlive its request; it
// ends with the write and its settling, or when the namespace table closes.
//
// The package does not read connections (package session), decide ownership (package
// cluster), move entries to a new owner (package handoff) or check rights (package
// access).
package engine
