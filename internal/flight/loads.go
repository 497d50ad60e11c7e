package flight

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Stamp is the moment at which a load began.
type Stamp struct {
	Version kv.Version    // of the value to load, which is current as of it
	At      time.Duration // on the boot clock
}

// Result is the result of a load.
type Result struct {
	loader.Value
	Stamp
	// Absent says that the origin has no such key, so there is no value.
	Absent bool
	// Uncached says that no cache may keep the value: its key was invalidated or its
	// ownership ended during the load, or the origin forbids it.
	Uncached bool
}

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
	// Fresh joins no load that began before this call. If one is in progress, it is
	// detached.
	Fresh bool
}

// LoadsConfig has the limits of Loads.
type LoadsConfig struct {
	MaxLoads   int           // loads in progress, detached ones included; zero: 4,096
	MaxWaiters int           // callers that wait for loads, over all keys; zero: 65,536
	Timeout    time.Duration // of one load; zero: 30 s
}

// LoadsStats counts since the start, except UnderWay and Waiting.
type LoadsStats struct {
	UnderWay, Waiting int
	Begun             uint64 // without loads that ended with ErrPresent
	Collapsed         uint64 // callers that joined a load in progress
	Left              uint64 // callers that gave up before the load ended
	Detached          uint64 // loads whose value no cache may keep
	Failed            uint64 // loads that ended with an error other than ErrAbsent
	Absent            uint64
	Shed              uint64 // answered ErrBusy because of a limit
}

// Loads collapses loads: for each key at most one load is in progress that new callers
// join. A load does not belong to any one caller. It continues after all callers have
// left, for at most the timeout, and its result is kept for later requests.
type Loads struct {
	cfg    LoadsConfig
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	joinable atomic.Int64 // loads in the table; incremented before a load is stamped

	mu     sync.Mutex
	closed bool
	byHash map[kv.Hash][]*flight // joinable loads; nearly always one, at most maxOfHash
	stats  LoadsStats
}

// maxOfHash is the maximum number of loads, or leases, per hash that new callers can
// join. It bounds the search in the table. A further load detaches the first one, if
// possible one of its own namespace.
const maxOfHash = 8

// flight is one load in progress.
type flight struct {
	load     Load
	key      string
	stamp    Stamp
	done     chan struct{} // closed after result and err are set
	result   Result
	err      error
	detached bool // protected by Loads.mu
}

// NewLoads returns a Loads. It starts nothing.
func NewLoads(cfg LoadsConfig) (*Loads, error) {
	if cfg.MaxLoads < 0 || cfg.MaxWaiters < 0 || cfg.Timeout < 0 {
		return nil, fmt.Errorf("loads: bounds %d, %d and %v: none may be negative", cfg.MaxLoads, cfg.MaxWaiters, cfg.Timeout)
	}
	cfg.MaxLoads = cmp.Or(cfg.MaxLoads, 4096)
	cfg.MaxWaiters = cmp.Or(cfg.MaxWaiters, 65536)
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	l := &Loads{cfg: cfg, byHash: map[kv.Hash][]*flight{}}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l, nil
}

// Get joins the load of the key, or begins it, and waits for the result until ctx is
// done. All waiters share the bytes of the result. Get may be called concurrently.
func (l *Loads) Get(ctx context.Context, load Load) (Result, error) {
	l.mu.Lock()
	if l.stats.Waiting >= l.cfg.MaxWaiters {
		l.stats.Shed++
		l.mu.Unlock()
		return Result{}, fmt.Errorf("%w: %d callers wait for loads already", loader.ErrBusy, l.cfg.MaxWaiters)
	}
	f, _, err := l.joinLocked(load)
	if err != nil {
		l.mu.Unlock()
		return Result{}, err
	}
	l.stats.Waiting++
	l.mu.Unlock()

	left := false
	select {
	case <-f.done:
	case <-ctx.Done():
		left = true
	}
	l.mu.Lock()
	l.stats.Waiting--
	if left {
		l.stats.Left++
	}
	l.mu.Unlock()
	if left {
		return Result{}, context.Cause(ctx)
	}
	return f.result, f.err
}

// Refresh begins a load of the key in the background, unless one is in progress.
func (l *Loads) Refresh(load Load) (begun bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, begun, err = l.joinLocked(load)
	return begun, err
}

// joinLocked finds the flight of the key, or begins one.
func (l *Loads) joinLocked(load Load) (f *flight, begun bool, err error) {
	if l.closed {
		return nil, false, ErrClosed
	}
	at := load.Key.Hash
	for _, f := range l.byHash[at] {
		if f.key != string(load.Key.Bytes) || f.load.Key.Namespace != load.Key.Namespace ||
			f.load.OwnershipEpoch != load.OwnershipEpoch {
			continue
		}
		if load.Fresh {
			l.detachLocked(at, func(g *flight) bool { return g == f })
			break
		}
		l.stats.Collapsed++
		return f, false, nil
	}
	if l.stats.UnderWay >= l.cfg.MaxLoads {
		l.stats.Shed++
		return nil, false, fmt.Errorf("%w: %d loads are under way already", loader.ErrBusy, l.cfg.MaxLoads)
	}
	if of := l.byHash[at]; len(of) >= maxOfHash {
		gone := of[max(0, slices.IndexFunc(of, func(f *flight) bool { return f.load.Key.Namespace == load.Key.Namespace }))]
		l.detachLocked(at, func(f *flight) bool { return f == gone })
	}
	// Increment first: an invalidation that finds no load is then older than the stamp
	// of this load.
	l.joinable.Add(1)
	f = &flight{load: load, key: string(load.Key.Bytes), stamp: load.Begin(), done: make(chan struct{})}
	f.load.Key.Bytes = []byte(f.key) // the caller may reuse its bytes
	l.byHash[at] = append(l.byHash[at], f)
	l.stats.UnderWay++
	l.stats.Begun++
	l.wg.Add(1)
	go l.run(f) // ends with the load; Close waits for it
	return f, true, nil
}

// run makes the load. The flight stays in the table until its result is kept, so that no
// other load of the key begins before that.
func (l *Loads) run(f *flight) {
	defer l.wg.Done()
	ctx, cancel := context.WithTimeout(l.ctx, l.cfg.Timeout)
	defer cancel()
	var value loader.Value
	err := ErrPresent
	if f.load.Missing == nil || f.load.Missing() {
		value, err = fetch(ctx, f.load.Fetch)
	}

	l.mu.Lock()
	detached := f.detached
	l.mu.Unlock()
	absent := errors.Is(err, loader.ErrAbsent)
	f.result = Result{Value: value, Stamp: f.stamp, Absent: absent, Uncached: detached || value.NoStore}
	f.err = err
	if (err == nil || absent) && !f.result.Uncached && f.load.Keep != nil {
		f.result.Uncached = !f.load.Keep(f.result)
	}

	l.mu.Lock()
	// Check again: a caller that detached the flight during Keep has removed what Keep
	// stored. The waiters must not store it either.
	f.result.Uncached = f.result.Uncached || f.detached
	l.removeLocked(f.load.Key.Hash, func(g *flight) bool { return g == f })
	l.stats.UnderWay--
	switch {
	case err == ErrPresent:
		l.stats.Begun--
	case absent:
		l.stats.Absent++
	case err != nil:
		l.stats.Failed++
	}
	l.mu.Unlock()
	close(f.done)
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

// Detach announces an invalidation of a hash, after the invalidation was stamped. It
// removes the loads of the hash from the table. The waiters get the value, marked
// Uncached. Later callers begin a new load. While no load is in progress, Detach costs
// almost nothing.
func (l *Loads) Detach(h kv.Hash) {
	if l.joinable.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.detachLocked(h, func(*flight) bool { return true })
}

// DetachIf detaches all keys for which match returns true: for a flush, or the end of an
// ownership. It visits every load in progress.
func (l *Loads) DetachIf(match func(kv.NamespaceID, kv.Hash) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for h := range l.byHash {
		l.detachLocked(h, func(f *flight) bool { return match(f.load.Key.Namespace, h) })
	}
}

func (l *Loads) detachLocked(at kv.Hash, match func(*flight) bool) {
	l.removeLocked(at, func(f *flight) bool {
		if !match(f) {
			return false
		}
		f.detached = true
		l.stats.Detached++
		return true
	})
}

func (l *Loads) removeLocked(at kv.Hash, match func(*flight) bool) {
	before := len(l.byHash[at])
	rest := slices.DeleteFunc(l.byHash[at], match)
	l.joinable.Add(int64(len(rest) - before))
	if len(rest) == 0 {
		delete(l.byHash, at)
		return
	}
	l.byHash[at] = rest
}

// Stats returns the counts.
func (l *Loads) Stats() LoadsStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

// Close cancels the loads in progress, waits for them, and refuses new ones. It is
// idempotent.
func (l *Loads) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.cancel()
	l.wg.Wait()
}
