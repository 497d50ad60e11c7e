package cluster

import (
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/l2/ring"
)

// Owner is another process that may own partitions. There is one Owner a
// process: pointers to it may be compared.
type Owner struct {
	kv.Process
	leasedAt atomic.Int64 // boot clock when the last poll that it has answered was sent; zero is none
}

// Answers says whether the owner has answered a poll that was sent within the
// last d: whether it is worth the wait to ask it.
func (o *Owner) Answers(now, d time.Duration) bool {
	at := o.leasedAt.Load()
	return at != 0 && now-time.Duration(at) < d
}

// View is the ring as this node sees it. It is immutable.
type View struct {
	Table  *ring.Table
	self   kv.NodeID
	owners []*Owner // in the order of Table.Members
}

// Owner returns the process that should hold a partition; nil where nobody
// should.
func (v *View) Owner(p uint16) *Owner {
	i := v.Table.OwnerIndex(p)
	if i < 0 {
		return nil
	}
	return v.owners[i]
}

// Own says whether this node should hold a partition.
func (v *View) Own(p uint16) bool {
	o := v.Owner(p)
	return o != nil && o.Node == v.self
}
