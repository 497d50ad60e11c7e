package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/verify"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Verify answers VERIFY.
func (h *Admin) Verify(q *wire.Request, deadline time.Duration) wire.Reply {
	duration := time.Duration(q.WaitMS) * time.Millisecond
	if left := deadline - h.Clock.Read().Boot; duration+verify.ProbeTimeout > left {
		return wire.ErrorReply(wire.Errorf(wire.BadRequest,
			"a check of %v takes up to %v longer: give a timeout_ms above that, it is %d",
			duration, verify.ProbeTimeout, q.TimeoutMS))
	}
	if !h.verifying.CompareAndSwap(false, true) {
		return wire.ErrorReply(wire.Errorf(wire.Busy, "this host is being checked already: wait for that to end"))
	}
	defer h.verifying.Store(false)
	ctx, cancel := context.WithTimeout(context.Background(), duration)
	defer cancel()
	go func() { // ends with the check
		select {
		case <-h.Config.Program.Ending:
			cancel()
		case <-ctx.Done():
		}
	}()
	return wire.BodyReply(h.NewCheck().Run(ctx))
}

// NewCheck returns a check of the cluster as it is now.
func (h *Admin) NewCheck() *verify.Live {
	view := h.Node.View()
	hosts, trouble := verified(h.Node.Members())
	if isolated := h.Node.Stats().Isolated; isolated != "" && !h.Config.Program.AloneOK() {
		trouble = append([]string{"this host is alone: " + isolated}, trouble...)
	}
	return verify.NewLive(verify.LiveConfig{
		Self: h.Node.Self(), Bound: h.Config.Cluster.Bound, Hosts: hosts, Trouble: trouble,
		Now:     func() time.Duration { return h.Clock.Read().Boot },
		Execute: h.answer, Probe: h.probe,
		Owner: func(key []byte) (id kv.Process, ok bool) {
			o := view.AssignedOwner(h.Namespaces.Hash([]byte(verify.Namespace), key).Partition())
			if o == nil {
				return id, false
			}
			return o.Process, true
		},
	})
}

// verified returns the members that own or copy entries, and why a check of others is not conclusive.
func verified(members []cluster.Member) (hosts []kv.Process, trouble []string) {
	for _, m := range members {
		switch {
		case m.State == cluster.StateLeft, m.Stranger: // it does not own or copy any entry
		case m.State == cluster.StateMissing:
			trouble = append(trouble, fmt.Sprintf("%s is missing: %s", m.ID.Node, m.Why))
		default:
			hosts = append(hosts, m.ID)
		}
	}
	return hosts, trouble
}

// probe asks a host to read a key.
func (h *Admin) probe(ctx context.Context, id kv.Process, p *wire.Probe) (a wire.Probed, err error) {
	if id == h.Node.Self() {
		return h.Probed(p), nil
	}
	body := wire.MarshalBody(p)
	var got peer.Answer
	defer got.Release()
	q := wire.Request{Op: wire.OpProbe, Body: body}
	if err = h.Node.Do(ctx, id, verify.ProbeTimeout, &q, &got); err == nil {
		err = got.Err()
	}
	if err == nil {
		err = wire.UnmarshalBody(got.Body, &a)
	}
	return a, err
}

// Probed answers PROBE: it reads a key of VERIFY as an app of this host would.
func (h *Admin) Probed(p *wire.Probe) wire.Probed {
	q := &wire.Request{Op: wire.OpGet, Namespace: []byte(verify.Namespace), Key: p.Key, TTLMS: wire.TTLDefault}
	if p.Fresh {
		q.Options = wire.Fresh
	}
	r, err := h.answer(context.Background(), q)
	if err != nil && r.Status == wire.OK { // the read was not executed
		r.Status = wire.Unavailable
	}
	return wire.Probed{Status: uint8(r.Status), Value: r.Value, Source: uint8(r.Source)}
}
