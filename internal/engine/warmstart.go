package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// warmAtOnce bounds the keys that are loaded at a time, and warmTime the time of one
// load.
const (
	warmAtOnce = 16
	warmTime   = 30 * time.Second
)

// errEnough ends a listing.
var errEnough = errors.New("the list has more of this host's keys than warm_on_start.keys: raise it, or list fewer")

// Warm loads once the keys of a namespace's list that this host owns. It returns early if
// ctx ends.
func (c *Engine) Warm(ctx context.Context, ns *namespaces.Namespace) {
	w := ns.Warming
	if c.CaughtUp(ctx) != nil || !c.begun(ctx) {
		return
	}
	log := c.Config.Log.With("namespace", ns.Name)
	log.Info("warming begins", "rate", w.Rate)
	w.Is(namespaces.WarmRunning)
	began := time.Now()
	keys, err := c.warmKeys(ctx, ns)
	if err == nil || errors.Is(err, errEnough) {
		err = errors.Join(err, c.warmEach(ctx, ns, keys))
	}
	level, state := slog.LevelInfo, namespaces.WarmDone
	if err != nil {
		level, state = slog.LevelWarn, namespaces.WarmFailed
	}
	w.Is(state)
	log.Log(ctx, level, "warming has ended", "took", time.Since(began).Round(time.Millisecond), "loaded", w.Loaded.Load(),
		"absent", w.Absent.Load(), "failed", w.Failed.Load(), "error", err)
}

// warmKeys lists the keys that this host owns, each behind its length in two bytes. There
// may be many, and they are collected first, since the listing must not wait for loads.
func (c *Engine) warmKeys(ctx context.Context, ns *namespaces.Namespace) (keys []byte, err error) {
	n := 0
	err = ns.Warming.Lister.Keys(ctx, func(key []byte) error {
		switch {
		case !kv.ValidKey(key) || c.Node.OwnershipEpoch(ns.Key(key).Hash.Partition()) == 0:
			return nil
		case n == ns.Warming.Keys:
			return errEnough
		}
		n++
		keys = append(binary.BigEndian.AppendUint16(keys, uint16(len(key))), key...)
		return nil
	})
	return keys, err
}

// warmEach loads those of the keys that are missing.
func (c *Engine) warmEach(ctx context.Context, ns *namespaces.Namespace, keys []byte) error {
	limiter := rate.NewLimiter(rate.Limit(ns.Warming.Rate), 1)
	group := errgroup.Group{}
	group.SetLimit(warmAtOnce)
	defer group.Wait() // no function in it fails
	for len(keys) > 0 {
		end := 2 + int(binary.BigEndian.Uint16(keys))
		key := ns.Key(keys[2:end])
		keys = keys[end:]
		if _, there := c.Store.Peek(key, c.Clock.Read().Boot); there {
			continue
		}
		if err := limiter.Wait(ctx); err != nil {
			return err
		}
		group.Go(func() error {
			q := &wire.Request{Op: wire.OpGet, Namespace: []byte(ns.Name), Key: key.Bytes}
			b := namespaces.Pins{Table: c.Names}
			defer b.Release()
			r := c.serveKeyForPeer(ctx, q, key.Bytes, &b, c.Clock.Read().Boot+warmTime)
			ns.Warming.Count(&r)
			return nil
		})
	}
	return nil
}

// begun returns true once partitions are assigned to this host and it owns all of them.
// It returns false if ctx ends first.
func (c *Engine) begun(ctx context.Context) bool {
	for {
		changed := c.Node.Changed() // taken before the state that it tells of is read
		owns, holds := 0, 0
		v := c.Node.View()
		for p := range uint16(kv.Partitions) {
			if v.Own(p) {
				owns++
				if c.Node.OwnershipEpoch(p) != 0 {
					holds++
				}
			}
		}
		if owns > 0 && holds == owns {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}
