package engine

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/inspect"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Members lists this host and the others, by name.
func (h *Admin) Members() []cachesidecar.Member {
	var list []cachesidecar.Member
	differs := map[string][]string{}
	for _, s := range h.Node.Agreement.Differing() {
		differs[s.Node] = append(differs[s.Node], s.Name())
	}
	for _, m := range h.Node.Members() {
		list = append(list, cachesidecar.Member{
			Node: string(m.ID.Node), Address: m.Address, State: m.State, Epoch: m.ID.Epoch.String(),
			Weight: m.Weight, Partitions: m.Owned, Why: m.Why, Differs: differs[string(m.ID.Node)],
		})
	}
	return list
}

// Ring returns the assigned owner of a key, and whether this host owns it.
func (h *Admin) Ring(q *wire.Request) wire.Reply {
	if err := CheckKey(q.Key); err != nil {
		return wire.ErrorReply(err)
	}
	if !kv.ValidNamespace(string(q.Namespace)) {
		return wire.ErrorReply(namespaces.BadName(q.Namespace))
	}
	p := h.Namespaces.Hash(q.Namespace, q.Key).Partition()
	place := cachesidecar.Place{Partition: int(p)}
	if o := h.Node.View().AssignedOwner(p); o != nil {
		place.AssignedOwner = string(o.Node)
	}
	if h.Node.OwnershipEpoch(p) != 0 {
		place.Owner = h.Config.Node
	}
	return wire.BodyReply(place)
}

// ringOfOwner is Ring; it also asks the assigned owner whether it owns the key.
func (h *Admin) ringOfOwner(ctx context.Context, q *wire.Request) wire.Reply {
	r := h.Ring(q)
	var place cachesidecar.Place
	if r.Status != wire.OK || wire.UnmarshalBody(r.Body, &place) != nil || place.Owner != "" {
		return r
	}
	owner := h.Node.View().AssignedOwner(uint16(place.Partition))
	if owner == nil || owner.Process == h.Node.Self() {
		return r
	}
	var a peer.Answer
	defer a.Release()
	var theirs cachesidecar.Place
	ask := &wire.Request{Op: wire.OpRing, Namespace: q.Namespace, Key: q.Key}
	waited := inspect.BeginWait(ctx, inspect.Owner, string(owner.Node))
	err := h.Node.Do(ctx, owner.Process, h.Deadlines.Timeout(q)/2, ask, &a)
	if waited(); err == nil && a.Status == wire.OK && wire.UnmarshalBody(a.Body, &theirs) == nil {
		place.Owner = theirs.Owner
	}
	return wire.BodyReply(place)
}

// Stats collects the statistics of every host. own is this host's.
func (h *Admin) Stats(ctx context.Context, q *wire.Request, own cachesidecar.Stats) wire.Reply {
	all := cachesidecar.ClusterStats{Nodes: []cachesidecar.Stats{own}, Missing: []cachesidecar.MissingStats{}}
	for _, m := range h.Node.Members() {
		if m.State == cluster.StateMissing {
			all.Missing = append(all.Missing, cachesidecar.MissingStats{Node: string(m.ID.Node), Why: m.Why})
		}
	}
	living := func(m *cluster.Member) bool {
		return m.State != cluster.StateMissing && m.State != cluster.StateLeft && !m.Stranger
	}
	for _, a := range h.askAll(ctx, q, wire.Request{Op: wire.OpStats}, living) {
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

// Forget drops a host that is gone, on this host. MISS means that it is unknown here.
func (h *Admin) Forget(node kv.NodeID) wire.Reply {
	switch known, err := h.Node.Forget(node); {
	case errors.Is(err, cluster.ErrSelf):
		return failed(wire.BadRequest, "%s is this very host: to take it out of the cluster, stop it", node)
	case err != nil:
		return failed(wire.Unavailable, "%s is not forgotten by %s: %v: stop it, wait a few seconds, and try again",
			node, h.Config.Node, err)
	case !known:
		return wire.Reply{Status: wire.Miss}
	}
	return wire.Reply{}
}

// ForgetEverywhere drops a host that is gone, on all living hosts. It asks the other
// hosts even if this one does not know the host, or has forgotten it before.
func (h *Admin) ForgetEverywhere(ctx context.Context, q *wire.Request) wire.Reply {
	node := kv.NodeID(q.Key)
	all := h.Forget(node)
	if all.Status.IsError() {
		return all // it lives, as far as this host knows
	}
	var unasked []string
	others := func(m *cluster.Member) bool { return m.ID.Node != node && m.MayOwn }
	for _, a := range h.askAll(ctx, q, *q, others) {
		switch {
		case a.err == nil && a.reply.Status == wire.OK:
			all.Status = wire.OK
		case a.err == nil:
		case a.reply.Status == wire.Unavailable: // it lives, as far as that host knows
			return a.reply
		default:
			unasked = append(unasked, string(a.node))
		}
	}
	if len(unasked) > 0 {
		slices.Sort(unasked)
		return failed(wire.Timeout, "%s did not answer, and may list %s still: try again once they do",
			strings.Join(unasked, ", "), node)
	}
	return all
}

// hostAnswer is the answer of one host.
type hostAnswer struct {
	node  kv.NodeID
	reply wire.Reply
	err   error
}

// askAll sends a request to the members that which selects, all at once. Each answer has
// less than half of the time of q.
func (h *Admin) askAll(
	ctx context.Context, q *wire.Request, out wire.Request, which func(*cluster.Member) bool,
) []hostAnswer {
	timeout := h.Deadlines.Timeout(q)
	timeout = (timeout - AnswerBefore(timeout)) / 2
	var to []kv.Process
	for _, m := range h.Node.Members() {
		if m.ID != h.Node.Self() && which(&m) {
			to = append(to, m.ID)
		}
	}
	list := make([]hostAnswer, len(to))
	var wg sync.WaitGroup
	for i, id := range to {
		wg.Go(func() {
			var got peer.Answer
			defer got.Release()
			send := out
			a := &list[i]
			a.node = id.Node
			if a.err = h.Node.Do(ctx, id, timeout, &send, &got); a.err == nil {
				a.reply, a.err = owned(&got.Reply), got.Err()
			}
		})
	}
	waited := inspect.BeginWait(ctx, inspect.Owner, "")
	wg.Wait()
	waited()
	return list
}
