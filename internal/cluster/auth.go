package cluster

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// AUTH, under policy consistent: each owner has a majority of the voters acknowledge
// the partitions that it owns. AUTH uses the connection for polls.

// sendAuth asks a voter. A slow voter has at most maxAuths requests in flight; further
// ones are dropped, because the machine asks again. n.mu is held.
func (n *Node) sendAuth(s ownership.SendAuth) {
	m := n.members[s.To.Node]
	if n.running == nil || m == nil || m.id != s.To {
		return
	}
	slots := m.auth
	select {
	case slots <- struct{}{}:
	default:
		return
	}
	body, err := wire.MarshalBody(&wire.Auth{Ownerships: toOwnerships(s.Auth.Ownerships), Clock: uint64(n.cfg.Versions.Next(n.cfg.Clock.Read().Wall))})
	if err != nil {
		n.cfg.Log.Error("auth", "error", err)
		<-slots
		return
	}
	ctx := n.running
	n.tasks.Go(func() { // ends with its call
		defer func() { <-slots }()
		n.askAuth(ctx, s.To, s.Round, body)
	})
}

func (n *Node) askAuth(ctx context.Context, to kv.Process, round uint64, body []byte) {
	var a peer.Answer
	defer a.Release()
	err := n.pool.Do(ctx, to, peer.Poll, n.cfg.Bound/2, &wire.Request{Op: wire.OpAuth, Body: body}, &a)
	var w wire.Authorized
	if err == nil && a.Status == wire.OK {
		err = wire.UnmarshalBody(a.Body, &w)
	}
	if err != nil || a.Status != wire.OK {
		n.cfg.Log.Debug("an AUTH was not answered", "node", to.Node, "error", err, "message", string(a.Message))
		return
	}
	if n.ahead(to, w.Newest()) {
		return
	}
	n.cfg.Versions.Observe(kv.Version(w.Clock))
	n.learn(w.Floors)
	sets := make([]kv.PartitionSet, len(w.Acknowledged))
	for i, b := range w.Acknowledged {
		sets[i] = fromSet(b)
	}
	n.about(to, func(m *ownership.Machine, now time.Duration) { m.Authorized(now, to, round, sets) })
}

// authorize answers an AUTH.
func (s *polls) authorize(w *wire.Auth) wire.Reply {
	n := s.n
	if n.ahead(s.from, w.Newest()) {
		return failure(tooFarAhead)
	}
	n.cfg.Versions.Observe(kv.Version(w.Clock))
	var sets []kv.PartitionSet
	n.from(s.from, func(m *ownership.Machine, now time.Duration) {
		sets = m.Authorize(now, s.from, ownership.Auth{Ownerships: fromOwnerships(w.Ownerships)})
	})
	answer := wire.Authorized{Clock: uint64(n.cfg.Versions.Next(n.cfg.Clock.Read().Wall)), Floors: n.floors(failpoint.FloorsInAuth)}
	for _, set := range sets {
		answer.Acknowledged = append(answer.Acknowledged, toSet(set))
	}
	return body(&answer)
}
