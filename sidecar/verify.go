package sidecar

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// VERIFY checks the promise against the cluster as it runs: this host writes
// keys that each of the hosts owns, lets all of them read these as their apps
// would (PROBE), and judges what they say (see history.go). Only this host's
// clock is read: a read counts from before it was asked for, a write from after
// it was acknowledged, so that no delay looks like a stale read.

// verifyNamespace is where this goes on. Nobody else may use it.
const verifyNamespace = "_verify"

// reserved says whether a namespace is none of the apps'.
func reserved(ns []byte) bool { return string(ns) == verifyNamespace }

var errReserved = wire.Errorf(wire.BadRequest, "namespace %s is VERIFY's own: use another name", verifyNamespace)

// Bounds of a run.
const (
	keysPerNode   = 4
	maxVerifyKeys = 64 // or one a node
	readersOfNode = 2
	freshOf       = 8 // one read in so many is a fresh one
	writePause    = 50 * time.Millisecond
	readPause     = time.Millisecond
	probeTimeout  = 2 * time.Second
	verifyTTL     = wire.MaxVerify*time.Millisecond + time.Minute
	keyTries      = 1000 // of a node's keys
)

// verify answers VERIFY.
func (s *Sidecar) verify(q *wire.Request, deadline time.Duration) wire.Reply {
	duration := time.Duration(q.WaitMS) * time.Millisecond
	if left := deadline - s.clock.Read().Boot; duration+probeTimeout > left {
		return errorReply(wire.Errorf(wire.BadRequest, "a check of %v takes up to %v longer: give a timeout_ms above that, it is %d", duration, probeTimeout, q.TimeoutMS))
	}
	if !s.verifying.CompareAndSwap(false, true) {
		return errorReply(wire.Errorf(wire.Busy, "this host is being checked already: wait for that to end"))
	}
	defer s.verifying.Store(false)
	ctx, cancel := context.WithTimeout(context.Background(), duration)
	defer cancel()
	go func() { // ends with the check
		select {
		case <-s.ending:
			cancel()
		case <-ctx.Done():
		}
	}()
	v := s.newVerification()
	begun := s.clock.Read().Boot
	v.run(ctx)
	return bodyReply(v.report(s.clock.Read().Boot - begun))
}

// verification is one run.
type verification struct {
	s       *Sidecar
	history *history
	nodes   []*verifyNode
	trouble []string // why it cannot be conclusive
}

// verifyNode is what one host has read. Under the history's lock.
type verifyNode struct {
	wire.VerifiedNode
	id    kv.Process
	stale staleness
}

func (s *Sidecar) newVerification() *verification {
	v := &verification{s: s, history: &history{bound: s.cfg.MaxStaleness}}
	for _, m := range s.node.Members() {
		switch {
		case m.State == cluster.StateLeft, m.Stranger: // it serves nothing that is cached
			continue
		case m.State == cluster.StateMissing:
			v.trouble = append(v.trouble, fmt.Sprintf("%s is missing: %s", m.ID.Node, m.Why))
			continue
		}
		v.nodes = append(v.nodes, &verifyNode{VerifiedNode: wire.VerifiedNode{Node: string(m.ID.Node)}, id: m.ID})
	}
	v.findKeys()
	return v
}

// findKeys chooses keys of every host that owns some.
func (v *verification) findKeys() {
	view := v.s.node.View()
	each := max(1, min(keysPerNode, maxVerifyKeys/max(1, len(v.nodes))))
	wanted := map[kv.Process]int{}
	for _, n := range v.nodes {
		wanted[n.id] = each
	}
	run := rand.Uint32()
	for i := 0; i < keyTries*len(v.nodes) && len(wanted) > 0; i++ {
		name := fmt.Appendf(nil, "%s-%x-%d", v.s.cfg.Node, run, i)
		o := view.Owner(v.s.hash([]byte(verifyNamespace), name).Partition())
		if o == nil || wanted[o.Process] == 0 {
			continue
		}
		if wanted[o.Process]--; wanted[o.Process] == 0 {
			delete(wanted, o.Process)
		}
		v.history.keys = append(v.history.keys, &historyKey{name: name})
	}
	for _, n := range v.nodes {
		if wanted[n.id] == each {
			v.trouble = append(v.trouble, fmt.Sprintf("%s owns no keys", n.Node))
		}
	}
}

// run reads and writes until ctx ends, and removes the keys.
func (v *verification) run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, k := range v.history.keys {
		wg.Go(func() {
			for ctx.Err() == nil {
				v.write(k)
				sleep(ctx, writePause/2+rand.N(writePause))
			}
		})
	}
	for _, n := range v.nodes {
		for range readersOfNode {
			wg.Go(func() {
				for ctx.Err() == nil && len(v.history.keys) > 0 {
					v.read(ctx, n, v.history.keys[rand.IntN(len(v.history.keys))], rand.IntN(freshOf) == 0)
					sleep(ctx, readPause)
				}
			})
		}
	}
	wg.Wait()
	for _, k := range v.history.keys {
		_, _ = v.s.ask(context.Background(), &wire.Request{Op: wire.OpDelete, Namespace: []byte(verifyNamespace), Keys: [][]byte{k.name}})
	}
}

// write overwrites a key through this host, or deletes it.
func (v *verification) write(k *historyKey) {
	n := v.history.writes(k)
	q := &wire.Request{
		Op: wire.OpSet, Namespace: []byte(verifyNamespace), Key: k.name, Value: binary.BigEndian.AppendUint64(nil, uint64(n)),
		TTLMS: verifyTTL.Milliseconds(),
	}
	r, err := v.s.ask(context.Background(), q)
	if err == nil && r.Status == wire.OK {
		v.history.acknowledged(k, n, v.s.clock.Read().Boot)
	}
}

// read lets a host read a key, and judges what it says.
func (v *verification) read(ctx context.Context, n *verifyNode, k *historyKey, fresh bool) {
	sent := v.s.clock.Read().Boot
	own := n.id == v.s.node.Self()
	r := v.history.reads(k, n.Node, sent, own, fresh)
	var a wire.Probed
	var err error
	p := wire.Probe{Key: k.name, Fresh: fresh}
	if own {
		a = v.s.probed(&p)
	} else {
		a, err = v.probe(ctx, n.id, &p)
	}
	got := 0
	if err == nil && a.Status == uint8(wire.OK) && len(a.Value) == 8 {
		got = int(binary.BigEndian.Uint64(a.Value))
	}
	v.history.mu.Lock()
	defer v.history.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return
	case err != nil || wire.Status(a.Status).IsError():
		n.Errors++
		return
	case got == 0:
		n.Misses++
		return
	case fresh:
		n.Fresh++
	case a.Source == uint8(wire.SourceL1):
		n.L1++
	case a.Source == uint8(wire.SourceL2):
		n.L2++
	default:
		n.Peer++
	}
	n.stale.add(v.history.judgeLocked(r, got))
}

// probe asks another host to read.
func (v *verification) probe(ctx context.Context, id kv.Process, p *wire.Probe) (a wire.Probed, err error) {
	body, err := wire.MarshalBody(p)
	if err != nil {
		return a, err
	}
	var got peer.Answer
	defer got.Release()
	if err = v.s.node.Do(ctx, id, probeTimeout, &wire.Request{Op: wire.OpProbe, Body: body}, &got); err == nil {
		err = got.Err()
	}
	if err == nil {
		err = wire.UnmarshalBody(got.Body, &a)
	}
	return a, err
}

// probed answers PROBE: it reads a key of VERIFY's as an app of this host would.
func (s *Sidecar) probed(p *wire.Probe) wire.Probed {
	q := &wire.Request{Op: wire.OpGet, Namespace: []byte(verifyNamespace), Key: p.Key, TTLMS: wire.TTLDefault}
	if p.Fresh {
		q.Options = wire.Fresh
	}
	r, err := s.ask(context.Background(), q)
	if err != nil && r.Status == wire.OK { // it was not asked
		r.Status = wire.Unavailable
	}
	return wire.Probed{Status: uint8(r.Status), Value: r.Value, Source: uint8(r.Source)}
}

// report sums up.
func (v *verification) report(took time.Duration) wire.Verified {
	h := v.history
	h.mu.Lock()
	defer h.mu.Unlock()
	w := wire.Verified{
		DurationMS: took.Milliseconds(), BoundMS: h.bound.Milliseconds(), Keys: len(h.keys), Writes: h.acked, WriteErrors: h.begun - h.acked,
		Checked: []string{"read_your_writes", "bound", "fresh"}, Nodes: []wire.VerifiedNode{}, Staleness: []wire.VerifiedBucket{},
		Violations: append([]string{}, h.violations...), ViolationsTotal: h.broken, Inconclusive: append([]string{}, v.trouble...),
	}
	var all staleness
	fresh, own := int64(0), int64(0)
	for _, n := range v.nodes {
		n.StaleMaxUS = n.stale.max.Microseconds()
		w.Nodes = append(w.Nodes, n.VerifiedNode)
		all.merge(&n.stale)
		fresh += n.Fresh
		if n.id == v.s.node.Self() {
			own = n.L1 + n.L2 + n.Peer
		}
		if len(v.nodes) > 1 && n.L1 == 0 {
			w.Inconclusive = append(w.Inconclusive, n.Node+" has served nothing from a copy")
		}
	}
	if len(v.nodes) == 1 {
		w.Checked = []string{"read_your_writes", "fresh"} // there are no copies
	}
	if own == 0 || fresh == 0 || h.acked == 0 {
		w.Inconclusive = append(w.Inconclusive, "there were not enough reads and writes: check for longer")
	}
	for i, n := range all.counts {
		w.Staleness = append(w.Staleness, wire.VerifiedBucket{UpToMS: staleUpTo[i].Milliseconds(), Reads: n})
	}
	slices.SortFunc(w.Nodes, func(a, b wire.VerifiedNode) int { return cmp.Compare(a.Node, b.Node) })
	return w
}
