package cluster

import (
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/l2/ring"
)

// View is the ring as this node sees it. It is immutable.
type View struct {
	Table   *ring.Table
	self    kv.NodeID
	members []*kv.Process // in the order of Table.Members
}

func newView(self kv.NodeID, t *ring.Table, entered []kv.Process) *View {
	v := &View{Table: t, self: self}
	at := map[kv.NodeID]*kv.Process{}
	for i := range entered {
		at[entered[i].Node] = &entered[i]
	}
	for _, m := range t.Members() {
		v.members = append(v.members, at[m.Node])
	}
	return v
}

// Owner returns the process that should hold a partition; nil where nobody
// should. Everyone who gets one of the same view gets the same pointer.
func (v *View) Owner(p uint16) *kv.Process {
	i := v.Table.OwnerIndex(p)
	if i < 0 {
		return nil
	}
	return v.members[i]
}

// Own says whether this node should hold a partition.
func (v *View) Own(p uint16) bool {
	o := v.Owner(p)
	return o != nil && o.Node == v.self
}
