// Package changes has the rows that change at an origin end their cached values, by whatever
// hand: it follows a feed of changes, and deletes the keys at their owners.
//
// Input is a loader.Feed, and a Host that deletes and flushes. Output is deletions, and Stats.
//
// One host of the cluster follows a feed: the owner of the partition of its name. A transaction
// goes through these steps:
//
//	received   its commit is in the log of the server
//	seen       a reader that begins now sees it: a load that begins now brings what it wrote
//	deleted    the owners of all its keys have acknowledged
//	confirmed  and so have those of all transactions before it: the server need not send it again
//
// A load that began before the deletion is refused by its version, one that begins after it brings
// the new row. If this host ends in between, the next one receives the transaction again.
//
// Run is one goroutine, with one that looks whether this host leads, one that receives, and up to 64
// that delete. The package writes no
// value.
package changes
