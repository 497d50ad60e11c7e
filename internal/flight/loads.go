package flight

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Load is the request to Loads after a miss.
type Load struct {
	Key            kv.Key
	OwnershipEpoch uint32 // a load joins only loads of the same epoch
	// Begin stamps the load, before the origin is asked. It is called with Loads' lock
	// held, so that no detach can happen between the stamp and the entry in the table.
	// It must not call Loads.
	Begin func() Stamp
	// Missing is optional. It is called after the load is in the table and before Fetch.
	// If it returns false, another load has stored the key since the caller's miss, and
	// this load ends with ErrPresent.
	Missing func() bool
	Fetch   func(ctx context.Context) (loader.Value, error)
	// Keep stores a result that was not detached, "absent" included, before any waiter
	// gets it. So a request after the load finds the value in the store. Keep reports
	// whether it stored the result. It must check itself whether the version may still
	// be kept.
	Keep func(Result) bool
	// Over is optional. It is called at the end, after all waiters got the result.
	Over func()
	// Fresh joins no load that began before this call. If one is in progress, it is
	// detached.
	Fresh bool
}

// Bounds of Loads.
const (
	maxLoads    = 4096  // loads in progress, detached ones included
	maxWaiters  = 65536 // callers that wait for loads, over all keys; and, apart from them, for fills
	loadTimeout = 30 * time.Second
)

// Loads collapses loads: for each key at most one load is in progress that new callers
// join. A load does not belong to any one caller. It continues after all callers have
// left, for at most the timeout, and its result is kept for later requests.
type Loads struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	table Table[*flight] // its lock also guards the fields below

	closed bool
	// since the start, except UnderWay and Waiting. Loads leaves out loads that ended with ErrPresent. Shed counts
	// answers ErrBusy because of a limit. Fields of the origin are zero.
	stats cachesidecar.LoadStats
}

// flight is one load in progress.
type flight struct {
	load     Load // its key has the flight's own bytes
	stamp    Stamp
	done     chan struct{} // closed after result and err are set
	result   Result
	err      error
	detached bool // guarded by the table's lock
}

// FlightKey returns the key that is loaded.
func (f *flight) FlightKey() kv.Key { return f.load.Key }

// NewLoads returns a Loads. It starts nothing.
func NewLoads() *Loads {
	l := &Loads{}
	l.table.Detached = func(f *flight) {
		f.detached = true
		l.stats.Detached++
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// Get joins the load of the key, or begins it, and waits for the result until ctx is
// done. All waiters share the bytes of the result. Get may be called concurrently.
func (loads *Loads) Get(ctx context.Context, load Load) (Result, error) {
	loads.table.Lock()
	if loads.stats.Waiting >= maxWaiters {
		loads.stats.Shed++
		loads.table.Unlock()
		return Result{}, fmt.Errorf("%w: %d callers wait for loads already", loader.ErrBusy, maxWaiters)
	}
	f, _, err := loads.joinLocked(load)
	if err != nil {
		loads.table.Unlock()
		return Result{}, err
	}
	loads.stats.Waiting++
	loads.table.Unlock()

	select {
	case <-f.done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	loads.table.Lock()
	loads.stats.Waiting--
	loads.table.Unlock()
	if err != nil {
		return Result{}, err
	}
	return f.result, f.err
}

// Refresh begins a load of the key in the background, unless one is in progress.
func (loads *Loads) Refresh(load Load) (begun bool, err error) {
	loads.table.Lock()
	defer loads.table.Unlock()
	_, begun, err = loads.joinLocked(load)
	return begun, err
}

// joinLocked finds the flight of the key, or begins one.
func (loads *Loads) joinLocked(load Load) (f *flight, begun bool, err error) {
	if loads.closed {
		return nil, false, ErrClosed
	}
	same := func(f *flight) bool { return f.load.OwnershipEpoch == load.OwnershipEpoch }
	switch f, ok := loads.table.Find(load.Key, same); {
	case ok && load.Fresh:
		loads.table.DetachOne(f)
	case ok:
		loads.stats.Collapsed++
		return f, false, nil
	}
	if loads.stats.UnderWay >= maxLoads {
		loads.stats.Shed++
		return nil, false, fmt.Errorf("%w: %d loads are under way already", loader.ErrBusy, maxLoads)
	}
	f = loads.table.Add(load.Key, func() *flight {
		f := &flight{load: load, stamp: load.Begin(), done: make(chan struct{})}
		f.load.Key.Bytes = bytes.Clone(load.Key.Bytes) // the caller may reuse its bytes
		return f
	})
	loads.stats.UnderWay++
	loads.stats.Loads++
	loads.wg.Add(1)
	go loads.run(f) // ends with the load; Close waits for it
	return f, true, nil
}

// run makes the load. The flight stays in the table until its result is kept, so that no
// other load of the key begins before that.
func (loads *Loads) run(f *flight) {
	defer loads.wg.Done()
	ctx, cancel := context.WithTimeout(loads.ctx, loadTimeout)
	defer cancel()
	var value loader.Value
	err := ErrPresent
	if f.load.Missing == nil || f.load.Missing() {
		value, err = fetch(ctx, f.load.Fetch)
	}

	loads.table.Lock()
	detached := f.detached
	loads.table.Unlock()
	absent := errors.Is(err, loader.ErrAbsent)
	keep := f.load.Keep
	if err != nil && !absent {
		keep = nil
	}
	f.result = Result{Value: value, Stamp: f.stamp, Absent: absent}
	f.result.offer(detached, keep)
	f.err = err

	loads.table.Lock()
	// The waiters must not store the result of a detached flight either.
	f.result.NoStore = f.result.NoStore || f.detached
	loads.table.Remove(f)
	loads.stats.UnderWay--
	switch {
	case err == ErrPresent:
		loads.stats.Loads--
	case absent:
		loads.stats.Absent++
	case err != nil:
		loads.stats.Failed++
	}
	loads.table.Unlock()
	close(f.done)
	if f.load.Over != nil {
		f.load.Over()
	}
}

// fetch calls the code of the embedding program. A panic there becomes an error of the
// load, because otherwise it would end the caches of all namespaces.
func fetch(ctx context.Context, f func(context.Context) (loader.Value, error)) (v loader.Value, err error) {
	defer func() {
		if p := recover(); p != nil {
			v, err = loader.Value{}, fmt.Errorf("%w: its source panicked: %v", loader.ErrPermanent, p)
		}
	}()
	return f(ctx)
}

// Invalidate announces an invalidation of a hash, after the invalidation was stamped. The
// loads of the hash leave the table: the waiters get the value, marked NoStore, and
// later callers begin a new load. While no load is in progress, Invalidate costs almost
// nothing.
func (loads *Loads) Invalidate(h kv.Hash) { loads.table.Invalidate(h) }

// InvalidateIf detaches all keys for which match returns true: for a flush, or the end of an
// ownership. It visits every load in progress.
func (loads *Loads) InvalidateIf(match func(kv.NamespaceID, kv.Hash) bool) {
	loads.table.InvalidateIf(match)
}

// Stats returns the counts.
func (loads *Loads) Stats() cachesidecar.LoadStats {
	loads.table.Lock()
	defer loads.table.Unlock()
	return loads.stats
}

// Close cancels the loads in progress, waits for them, and refuses new ones. It is
// idempotent.
func (loads *Loads) Close() {
	loads.table.Lock()
	loads.closed = true
	loads.table.Unlock()
	loads.cancel()
	loads.wg.Wait()
}
