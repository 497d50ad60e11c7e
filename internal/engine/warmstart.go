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
	"github.com/cachesidecar/cachesidecar/loader"
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
func (e *Engine) Warm(ctx context.Context, ns *namespaces.Namespace) {
	w := ns.Warming
	if e.caughtUp(ctx) != nil || !e.ownsAssigned(ctx) {
		return
	}
	for e.Ledger.Closed(ns.ID) { // until a feed of changes is in time, nothing is kept
		if !kv.Sleep(ctx, e.Node.Bound()/16) {
			return
		}
	}
	list, leave, err := ns.WarmLister(ctx)
	if err != nil && ctx.Err() != nil {
		return
	}
	log := e.Config.Log.With("namespace", ns.Name)
	log.Info("warming begins", "rate", w.Rate)
	w.Is(namespaces.WarmRunning)
	began := time.Now()
	var keys []byte
	if err == nil {
		keys, err = e.warmList(ctx, ns, list)
		leave()
	}
	if err == nil || errors.Is(err, errEnough) {
		err = errors.Join(err, e.warmEach(ctx, ns, keys))
	}
	level, state := slog.LevelInfo, namespaces.WarmDone
	if err != nil {
		level, state = slog.LevelWarn, namespaces.WarmFailed
	}
	w.Is(state)
	log.Log(ctx, level, "warming has ended", "took", time.Since(began).Round(time.Millisecond),
		"loaded", w.Loaded.Load(), "absent", w.Absent.Load(), "failed", w.Failed.Load(), "error", err)
}

// warmList lists the keys that this host owns, each behind its length in two bytes. There
// may be many, and they are collected first, since the listing must not wait for loads.
func (e *Engine) warmList(
	ctx context.Context, ns *namespaces.Namespace, list loader.Lister,
) (keys []byte, err error) {
	n := 0
	err = list.Keys(ctx, func(key []byte) error {
		switch {
		case !kv.ValidKey(key) || e.Node.OwnershipEpoch(ns.Key(key).Hash.Partition()) == 0:
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
func (e *Engine) warmEach(ctx context.Context, ns *namespaces.Namespace, keys []byte) error {
	limiter := rate.NewLimiter(rate.Limit(ns.Warming.Rate), 1)
	group := errgroup.Group{}
	group.SetLimit(warmAtOnce)
	defer group.Wait() // no function in it fails
	for len(keys) > 0 {
		end := 2 + int(binary.BigEndian.Uint16(keys))
		key := ns.Key(keys[2:end])
		keys = keys[end:]
		if _, present := e.Store.Peek(key, e.Clock.Read().Boot); present {
			continue
		}
		if err := limiter.Wait(ctx); err != nil {
			return err
		}
		group.Go(func() error {
			q := &wire.Request{Op: wire.OpGet, Namespace: []byte(ns.Name), Key: key.Bytes}
			b := namespaces.Pins{Table: e.Namespaces}
			defer b.Release()
			r := e.servePeer(ctx, q, key.Bytes, &b, e.Clock.Read().Boot+warmTime)
			ns.Warming.Count(&r)
			return nil
		})
	}
	return nil
}
