package namespaces

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// With warm_on_start a host that has begun loads those keys of a list that it owns by
// then, so that the first reads do not miss them. It loads each key once, as a read
// would, at a bounded rate, and after everything else.

// Warming is the warming of a namespace.
type Warming struct {
	table    *Table
	of       *Namespace
	settings WarmSettings // with its defaults

	loaded, absent, failed atomic.Int64
	state                  atomic.Pointer[string]
}

// States of warming.
const (
	warmWaiting = "waiting"
	WarmRunning = "running"
	WarmDone    = "done"
	WarmFailed  = "failed"
)

// warmAtOnce bounds the keys that are loaded at a time, and warmTime the time of one
// load.
const (
	warmAtOnce = 16
	warmTime   = 30 * time.Second
)

// errEnough ends a listing.
var errEnough = errors.New("the list has more of this host's keys than warm_on_start.keys: raise it, or list fewer")

func newWarming(n *Table, of *Namespace, s WarmSettings) *Warming {
	s.Rate, s.Keys = cmp.Or(s.Rate, 1000), cmp.Or(s.Keys, 1_000_000)
	w := &Warming{table: n, of: of, settings: s}
	w.setState(warmWaiting)
	return w
}

func (w *Warming) setState(state string) { w.state.Store(&state) }

// Warmings returns what is to be run once, at the start.
func (n *Table) Warmings() (list []*Warming) {
	for _, ns := range n.All() {
		if ns.warming != nil {
			list = append(list, ns.warming)
		}
	}
	return list
}

// Run loads once the keys of the list that this host owns. It returns early if ctx ends.
func (w *Warming) Run(ctx context.Context) {
	n := w.table
	if n.CaughtUp(ctx) != nil || !n.OwnsAssigned(ctx) {
		return
	}
	for n.Ledger.Closed(w.of.ID) { // until a feed of changes is in time, nothing is kept
		if !kv.Sleep(ctx, n.most/16) {
			return
		}
	}
	list, leave, err := w.findList(ctx)
	if err != nil && ctx.Err() != nil {
		return
	}
	log := n.cfg.Log.With("namespace", w.of.Name)
	log.Info("warming begins", "rate", w.settings.Rate)
	w.setState(WarmRunning)
	began := time.Now()
	var keys []byte
	if err == nil {
		keys, err = w.listOwned(ctx, list)
		leave()
	}
	if err == nil || errors.Is(err, errEnough) {
		err = errors.Join(err, w.loadEach(ctx, keys))
	}
	level, state := slog.LevelInfo, WarmDone
	if err != nil {
		level, state = slog.LevelWarn, WarmFailed
	}
	w.setState(state)
	log.Log(ctx, level, "warming has ended", "took", time.Since(began).Round(time.Millisecond),
		"loaded", w.loaded.Load(), "absent", w.absent.Load(), "failed", w.failed.Load(), "error", err)
}

// listOwned lists the keys that this host owns, each behind its length in two bytes. There
// may be many, and they are collected first, since the listing must not wait for loads.
func (w *Warming) listOwned(ctx context.Context, list loader.Lister) (keys []byte, err error) {
	n := 0
	err = list.Keys(ctx, func(key []byte) error {
		switch {
		case !kv.ValidKey(key) || !w.table.Owns(w.of.Hash(key).Partition()):
			return nil
		case n == w.settings.Keys:
			return errEnough
		}
		n++
		keys = append(binary.BigEndian.AppendUint16(keys, uint16(len(key))), key...)
		return nil
	})
	return keys, err
}

// loadEach loads those of the keys that are missing.
func (w *Warming) loadEach(ctx context.Context, keys []byte) error {
	n := w.table
	limiter := rate.NewLimiter(rate.Limit(w.settings.Rate), 1)
	group := errgroup.Group{}
	group.SetLimit(warmAtOnce)
	defer group.Wait() // no function in it fails
	for len(keys) > 0 {
		end := 2 + int(binary.BigEndian.Uint16(keys))
		key := w.of.Key(keys[2:end])
		keys = keys[end:]
		if _, present := n.Store.Peek(key, n.clock.Read().Boot); present {
			continue
		}
		if err := limiter.Wait(ctx); err != nil {
			return err
		}
		group.Go(func() error {
			r := n.Read(ctx, w.of, key.Bytes, n.clock.Read().Boot+warmTime)
			w.count(&r)
			return nil
		})
	}
	return nil
}

// findList waits until the origin that the name has by then has agreed, and returns its list of the keys
// to be loaded. The origin stays open until leave is called. An error says that there is no list, or that
// ctx has ended.
func (w *Warming) findList(ctx context.Context) (list loader.Lister, leave func(), err error) {
	for {
		asked := w.of.Now().Origin
		if asked == nil {
			return nil, nil, errors.New("the origin has been taken out of the configuration")
		}
		if !asked.Agrees(ctx) {
			return nil, nil, ctx.Err()
		}
		o, err := w.of.enterOrigin()
		switch {
		case err != nil:
			return nil, nil, err
		case o == asked && o.Warm != nil:
			return o.Warm, o.Release, nil
		}
		if o.Release(); o == asked {
			return nil, nil, errors.New("the origin that a reload has brought lists no keys: restart this host")
		} // else a reload has put another in its place
	}
}

// count counts the result of a load.
func (w *Warming) count(r *wire.Reply) {
	switch r.Status {
	case wire.OK:
		w.loaded.Add(1)
	case wire.Miss:
		w.absent.Add(1)
	case wire.Moved: // another host owns it by now
	default:
		w.failed.Add(1)
	}
}

// WarmStats returns the warming's part of STATS; zero without warming.
func (ns *Namespace) WarmStats() (s cachesidecar.WarmStats) {
	if w := ns.warming; w != nil {
		s = cachesidecar.WarmStats{
			State: *w.state.Load(), Loaded: w.loaded.Load(), Absent: w.absent.Load(), Failed: w.failed.Load(),
		}
	}
	return s
}
