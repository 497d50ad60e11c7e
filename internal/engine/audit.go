package engine

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/l2/segment"
	"github.com/cachesidecar/cachesidecar/loader"
)

// An audit compares cached values with the origins of their namespaces. A hit is only chosen by its
// request; what follows is done in the background:
//
//	look       what is cached for the key now, here: this host's own entry, or its copy
//	load       what the origin has, within its limits; the result is kept nowhere
//	differs    the same once more, after the bound and replica_lag
//	counts     if the value of the first look is still cached then, and still differs
//
// So a change that was announced in time is no difference, nor is a lag of the origin that is
// configured.

// choice is a hit that is to be compared.
type choice struct {
	ns  *namespaces.Namespace
	key kv.Key // its bytes are the choice's own
}

// auditTime bounds one load of an audit, with its waits.
const auditTime = 30 * time.Second

// auditHits chooses some of a number of hits of a key at random, by the namespace's setting.
func (c *Loads) auditHits(ns *namespaces.Namespace, k kv.Key, n uint32) {
	if uint64(rand.Uint32()) >= ns.AuditChance*uint64(n) || !ns.Audit.Begin() {
		return
	}
	k.Bytes = bytes.Clone(k.Bytes)
	select {
	case c.audits <- choice{ns, k}:
	default:
		ns.Audit.Skipped.Add(1)
		ns.Audit.End()
	}
}

// Audit compares hits that were chosen with their origins until ctx ends.
func (c *Loads) Audit(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()
	for {
		select {
		case h := <-c.audits:
			group.Go(func() {
				defer h.ns.Audit.End()
				c.compare(ctx, h)
			})
		case <-ctx.Done():
			return
		}
	}
}

// compare compares the value of a key with the origin's, and counts the result.
func (c *Loads) compare(ctx context.Context, h choice) {
	a := &h.ns.Audit
	first, err := c.look(ctx, h)
	switch {
	case err == nil && !first.differs:
		a.Same.Add(1)
		return
	case err == nil:
		if !kv.Sleep(ctx, c.Namespaces.Bound(h.ns.ID)+h.ns.Now().ReplicaLag) {
			return
		}
		var again sight
		if again, err = c.look(ctx, h); errors.Is(err, errNotCached) || err == nil && again != first {
			a.Settled.Add(1)
			return
		}
	}
	switch {
	case ctx.Err() != nil:
	case err == nil:
		age := c.Clock.Read().Time().Sub(first.version.Wall())
		a.Differed(age, func() {
			c.Config.Log.Info("a cached value differs from the origin's, and no change of it was announced",
				"namespace", h.ns.Name, "key", string(h.key.Bytes), "cached_for", age)
		})
	case errors.Is(err, errNotCached), errors.Is(err, loader.ErrBusy), errors.Is(err, loader.ErrBadKey):
		a.Skipped.Add(1)
	default:
		a.Failed.Add(1)
	}
}

// sight is what a look has found.
type sight struct {
	version kv.Version // of the cached value
	differs bool       // the origin has another value, or none
}

// errNotCached means that there is nothing to compare.
var errNotCached = errors.New("the key is not cached here")

// look compares what is cached for a key now with what the origin has.
func (c *Loads) look(ctx context.Context, h choice) (s sight, err error) {
	if err := h.ns.Audit.Turn.Acquire(ctx, 1); err != nil {
		return s, err
	}
	defer h.ns.Audit.Turn.Release(1)
	ns := h.ns.Now()
	if ns.Origin == nil || ns.Keys.Check(h.key.Bytes) != nil || !ns.Origin.Guard.Spare() ||
		ns.Writing(h.key.Hash) {
		return s, loader.ErrBusy
	}
	cached, theirs := loader.Reservation{Memory: c.memory}, loader.Reservation{Memory: c.memory}
	defer cached.Free()
	defer theirs.Free()
	value, absent, version, err := c.cached(h, &cached)
	if err != nil {
		return s, err
	}
	ctx, cancel := context.WithTimeout(ctx, auditTime)
	defer cancel()
	v, err := ns.Load(ctx, h.key.Bytes)
	if err == nil {
		err = theirs.Take(len(v.Bytes))
	}
	none := errors.Is(err, loader.ErrAbsent)
	if err != nil && !none {
		return s, err
	}
	return sight{version, none != absent || !none && !bytes.Equal(value, v.Bytes)}, nil
}

// cached returns what a read through this host would find for the key. It is no read: it leaves no
// mark that would keep the entry.
func (c *Loads) cached(h choice, r *loader.Reservation) (value []byte, absent bool, version kv.Version, err error) {
	now := c.Clock.Read()
	c.Node.CheckPause(now.Boot)
	if c.Node.OwnershipEpoch(h.key.Hash.Partition()) != 0 {
		if err := r.Take(c.Store.Length(h.key)); err != nil {
			return nil, false, 0, err
		}
		value, seen, res := c.Store.Look(nil, h.key, segment.Query{Limit: segment.NoLimit, Unread: true}, now)
		if res != segment.Found || seen.Kind == kv.Stale {
			return nil, false, 0, errNotCached
		}
		return value, seen.Kind == kv.Absent, seen.Version, nil
	}
	owner := c.Node.View().Owner(h.key.Hash.Partition())
	if owner == nil || c.L1 == nil {
		return nil, false, 0, errNotCached
	}
	cp := c.remote.Get(h.key, owner, now)
	if cp == nil {
		return nil, false, 0, errNotCached
	}
	return cp.Value(), cp.Kind == kv.Absent, cp.Version, nil
}
