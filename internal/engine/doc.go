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
// The engine has eleven rooms, of a part or some. The parts stand on base, and each uses the parts that its
// fields name:
//
//	keys             the way of a request, of one key or many: here, at the owner, at the origin
//	Reads, MetaGets  what this host has of a key; a METAGET may change it
//	Writes, writeThrough  changes of what this host owns; at the origin before the cache
//	Copies, Calls, Forwarder  copies of what other hosts own, and calls to these, each made once for all
//	Loads, Tokens, warm   loads from origins, by apps, of a list of keys at the start
//	Changes, Tiers, Barriers, Flushes  the changes made here and heard of, load barriers, removals of all
//	Waits            the requests that wait without a goroutine: for the owner's answer, or for a fill
//	Watches          the stream of changes for WATCH
//	Acks             the wait until all hosts have applied a write
//	Owners, Deadlines  the owner of a key, the wait for one, entries on their way here; the time of a request
//	Hosts, Inspection  requests about hosts, and about what this one stores and does
//
// All methods may be called concurrently. A request of many keys, or to many hosts, uses
// goroutines that end with it. A write-through uses one that may outlive its request; it
// ends with the write and its settling, or when the namespace table closes.
//
// The package does not read connections (package session), decide ownership (package
// cluster), move entries to a new owner (package handoff) or check rights (package
// access).
package engine
