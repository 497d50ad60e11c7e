package engine

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
)

// CaughtUp returns nil once this host has applied all changes that other hosts had made
// before the call. It returns the error of ctx if ctx ends first.
func (c *Engine) CaughtUp(ctx context.Context) error {
	begun := c.Clock.Read().Boot
	for !c.leasedSince(begun) {
		if !kv.Sleep(ctx, c.Node.Bound()/8) {
			return ctx.Err()
		}
	}
	return nil
}

func (c *Engine) leasedSince(begun time.Duration) bool {
	v := c.Node.View()
	for _, o := range v.Others() {
		if o.LeasedAt() <= begun {
			return false
		}
	}
	return v.Owner(0) != nil // false: there is no ring yet
}

// lacks reports whether the origin surely has no such key. Only the owner of the key can
// know that.
func (c *Engine) lacks(ns *namespaces.Namespace, key kv.Key) bool {
	if ns.KeyFilter == nil {
		return false
	}
	c.Node.CheckPause(c.Clock.Read().Boot)
	return c.Node.OwnershipEpoch(key.Hash.Partition()) != 0 && !ns.KeyFilter.MayExist(key)
}

// missed notes that other hosts may have changed keys of some partitions.
func (c *Engine) missed(set kv.PartitionSet) {
	for _, k := range c.Names.KeyFilters {
		if k != nil {
			k.Missed(set)
		}
	}
}
