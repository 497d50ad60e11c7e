// Package handoff moves entries to the new owner of their partition.
//
// Input is the ownerships that begin and end, as the cluster's node reports them, and the
// requests PULL and FETCH of other sidecars. Output is entries that are stored here, each
// checked against the ledger, and the answers to these requests.
//
// The new owner pulls the entries from the process that has released the partition, the
// hottest first and at a bounded rate. Until that is done, a miss asks that process for
// the one entry. A released partition is offered to one ballot; an offer expires when it
// is not pulled from.
//
// Run waits for every goroutine of the package: one per source for pulls, and one per
// entry that is fetched. Methods that the node calls run under the node's lock and do not
// block. The others may be called concurrently.
//
// The package does not decide which process owns a partition (packages cluster and
// l2/ownership). It makes its best effort only: an entry that does not come is a miss at
// the new owner.
package handoff
