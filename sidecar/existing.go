package sidecar

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
)

// caughtUp returns once all that others had changed before the call has been
// applied here.
func (c *core) caughtUp(ctx context.Context) error {
	begun := c.clock.Read().Boot
	for !c.leasedSince(begun) {
		if !kv.Sleep(ctx, c.node.Bound()/8) {
			return ctx.Err()
		}
	}
	return nil
}

func (c *core) leasedSince(begun time.Duration) bool {
	v := c.node.View()
	for _, o := range v.Others() {
		if o.LeasedAt() <= begun {
			return false
		}
	}
	return v.Owner(0) != nil // there is a ring
}

// lacks says whether the origin surely has no such key, which only the holder of
// the key can know.
func (c *core) lacks(ns *namespaces.Namespace, key kv.Key) bool {
	if ns.KeyFilter == nil {
		return false
	}
	c.node.Beat(c.clock.Read().Boot)
	return c.node.Holds(key.Hash.Partition()) != 0 && !ns.KeyFilter.MayExist(key)
}

// missed says that others may have changed keys of some partitions.
func (c *core) missed(set kv.PartitionSet) {
	for _, k := range c.names.KeyFilters {
		if k != nil {
			k.Missed(set)
		}
	}
}
