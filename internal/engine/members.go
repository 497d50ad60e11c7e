package engine

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Requests about hosts rather than keys: the members, the owner of a key, and questions
// to all hosts.

// members lists this host and the others, by name.
func (c *Engine) members() []cachesidecar.Member {
	var list []cachesidecar.Member
	for _, m := range c.Node.Members() {
		list = append(list, cachesidecar.Member{
			Node: string(m.ID.Node), Address: m.Address, State: m.State, Epoch: m.ID.Epoch.String(),
			Weight: m.Weight, Partitions: m.Owned, Why: m.Why,
		})
	}
	return list
}

// Ring returns the assigned owner of a key, and whether this host owns it.
func (c *Engine) Ring(q *wire.Request) wire.Reply {
	if err := CheckKey(q.Key); err != nil {
		return wire.ErrorReply(err)
	}
	if !kv.ValidNamespace(string(q.Namespace)) {
		return wire.ErrorReply(namespaces.BadName(q.Namespace))
	}
	p := c.Hash(q.Namespace, q.Key).Partition()
	place := cachesidecar.Place{Partition: int(p)}
	if o := c.Node.View().Owner(p); o != nil {
		place.Owner = string(o.Node)
	}
	if c.Node.OwnershipEpoch(p) != 0 {
		place.Holder = c.Config.Node
	}
	return wire.BodyReply(place)
}

// ringOfOwner is Ring; it also asks the assigned owner whether it owns the key.
func (c *Engine) ringOfOwner(ctx context.Context, q *wire.Request) wire.Reply {
	r := c.Ring(q)
	var place cachesidecar.Place
	if r.Status != wire.OK || wire.UnmarshalBody(r.Body, &place) != nil || place.Holder != "" {
		return r
	}
	owner := c.Node.View().Owner(uint16(place.Partition))
	if owner == nil || owner.Process == c.Node.Self() {
		return r
	}
	var a peer.Answer
	defer a.Release()
	var theirs cachesidecar.Place
	if c.Node.Do(ctx, owner.Process, c.Timeout(q)/2, &wire.Request{Op: wire.OpRing, Namespace: q.Namespace, Key: q.Key}, &a) == nil &&
		a.Status == wire.OK && wire.UnmarshalBody(a.Body, &theirs) == nil {
		place.Holder = theirs.Holder
	}
	return wire.BodyReply(place)
}

// StatsCluster collects the statistics of every host. own is this host's.
func (c *Engine) StatsCluster(ctx context.Context, q *wire.Request, own cachesidecar.Stats) wire.Reply {
	all := cachesidecar.ClusterStats{Nodes: []cachesidecar.Stats{own}, Missing: []cachesidecar.MissingStats{}}
	for _, m := range c.Node.Members() {
		if m.State == cluster.StateMissing {
			all.Missing = append(all.Missing, cachesidecar.MissingStats{Node: string(m.ID.Node), Why: m.Why})
		}
	}
	for _, a := range c.everywhere(ctx, q, &wire.Request{Op: wire.OpStats}) {
		var st cachesidecar.Stats
		if a.err == nil {
			a.err = wire.UnmarshalBody(a.reply.Body, &st)
		}
		if a.err != nil {
			all.Missing = append(all.Missing, cachesidecar.MissingStats{Node: string(a.node), Why: a.err.Error()})
		} else {
			all.Nodes = append(all.Nodes, st)
		}
	}
	slices.SortFunc(all.Nodes, func(a, b cachesidecar.Stats) int { return cmp.Compare(a.Node, b.Node) })
	return wire.BodyReply(all)
}

// said is the answer of one host.
type said struct {
	node  kv.NodeID
	reply wire.Reply
	err   error
}

// everywhere sends a request to every other living member, all at once.
func (c *Engine) everywhere(ctx context.Context, q *wire.Request, out *wire.Request) []said {
	timeout := c.Timeout(q)
	timeout -= AnswerBefore(timeout)
	var list []said
	var wg sync.WaitGroup
	members := c.Node.Members()
	list = make([]said, 0, len(members))
	for _, m := range members {
		if m.ID == c.Node.Self() || m.State == cluster.StateMissing || m.State == cluster.StateLeft || m.Stranger {
			continue
		}
		list = append(list, said{node: m.ID.Node})
		a := &list[len(list)-1]
		wg.Go(func() {
			var got peer.Answer
			defer got.Release()
			send := *out
			if a.err = c.Node.Do(ctx, m.ID, timeout/2, &send, &got); a.err == nil {
				a.reply, a.err = owned(&got.Reply), got.Err()
			}
		})
	}
	wg.Wait()
	return list
}
