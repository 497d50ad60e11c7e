package loader

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Stamp is the moment at which a load began.
type Stamp struct {
	Version kv.Version    // of the value to come, and as of when it is current
	At      time.Duration // on the boot clock
}

// Result is a loaded value.
type Result struct {
	Value
	Stamp
	// Absent says that the origin has none: there is no value.
	Absent bool
	// Uncached says that no cache may keep the value: its key was invalidated,
	// or its holding ended, while it was loaded, or the origin forbids it.
	Uncached bool
}

// Load is what Loads is asked to do on a miss.
type Load struct {
	Key     kv.Key
	OwnershipEpoch uint32 // for which it is made, as the caller numbers them: no load for another one is joined
	// Begin stamps the load, before the origin is asked. It is called under
	// Loads' lock, so that no detach falls between the stamp and the entry in
	// the table; it may not call back.
	Begin func() Stamp
	// Missing, if given, is asked once the load has its place in the table, before
	// Fetch: where another load has stored the key since its caller missed it, this
	// one ends with ErrPresent.
	Missing func() bool
	Fetch   func(ctx context.Context) (Value, error)
	// Keep stores a result that nothing detached, "absent" included, before
	// anybody gets it: who comes after the load finds it in the store. It reports
	// whether it was stored. It checks for itself whether the version may still be
	// kept.
	Keep func(Result) bool
	// Fresh joins no load begun before this call: the one under way, if any,
	// is detached.
	Fresh bool
}

// LoadsConfig has the bounds of Loads.
type LoadsConfig struct {
	MaxLoads   int           // under way, detached ones included; zero: 4,096
	MaxWaiters int           // callers waiting for loads, all keys together; zero: 65,536
	Timeout    time.Duration // of one load; zero: 30 s
}

// LoadsStats counts since the start, but for the first two.
type LoadsStats struct {
	UnderWay, Waiting int
	Begun             uint64 // less those that ended with ErrPresent
	Collapsed         uint64 // joined a load that was under way
	Left              uint64 // gave up before the load was done
	Detached          uint64 // loads whose value no cache may keep
	Failed            uint64 // loads that ended with an error other than ErrAbsent
	Absent            uint64
	Shed              uint64 // answered ErrBusy because of a bound
}

// Loads collapses loads: at most one per key is under way that a newcomer may
// join. A load belongs to nobody who waits for it; it goes on when all of them
// have left, for at most the timeout, and is kept for who comes next.
type Loads struct {
	cfg    LoadsConfig
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	joinable atomic.Int64 // loads in the table; raised before one is stamped

	mu     sync.Mutex
	closed bool
	byHash map[kv.Hash][]*flight // those that may be joined; nearly always one, at most maxOfHash
	stats  LoadsStats
}

// maxOfHash is how many loads, or leases, of keys of one hash newcomers may join,
// so that nobody looks through more: the next one detaches the first, of its own
// namespace where there is one.
const maxOfHash = 8

// flight is one load under way.
type flight struct {
	load     Load
	key      string
	stamp    Stamp
	done     chan struct{} // closed after result and err are set
	result   Result
	err      error
	detached bool // under Loads.mu
}

// NewLoads returns a Loads. It starts nothing.
func NewLoads(cfg LoadsConfig) (*Loads, error) {
	if cfg.MaxLoads < 0 || cfg.MaxWaiters < 0 || cfg.Timeout < 0 {
		return nil, fmt.Errorf("loads: bounds %d, %d and %v: none may be negative", cfg.MaxLoads, cfg.MaxWaiters, cfg.Timeout)
	}
	cfg.MaxLoads = orInt(cfg.MaxLoads, 4096)
	cfg.MaxWaiters = orInt(cfg.MaxWaiters, 65536)
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	l := &Loads{cfg: cfg, byHash: map[kv.Hash][]*flight{}}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l, nil
}

func orInt(n, instead int) int {
	if n == 0 {
		return instead
	}
	return n
}

// Get joins the load of the key, or begins it, and waits for the result until
// ctx is done. The result's bytes are shared by all who wait.
func (l *Loads) Get(ctx context.Context, load Load) (Result, error) {
	l.mu.Lock()
	if l.stats.Waiting >= l.cfg.MaxWaiters {
		l.stats.Shed++
		l.mu.Unlock()
		return Result{}, fmt.Errorf("%w: %d callers wait for loads already", ErrBusy, l.cfg.MaxWaiters)
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

// Refresh begins a load of the key in the background, unless one is under way.
func (l *Loads) Refresh(load Load) (begun bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, begun, err = l.joinLocked(load)
	return begun, err
}

// joinLocked finds the key's flight or begins one.
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
		return nil, false, fmt.Errorf("%w: %d loads are under way already", ErrBusy, l.cfg.MaxLoads)
	}
	if of := l.byHash[at]; len(of) >= maxOfHash {
		gone := of[max(0, slices.IndexFunc(of, func(f *flight) bool { return f.load.Key.Namespace == load.Key.Namespace }))]
		l.detachLocked(at, func(f *flight) bool { return f == gone })
	}
	// First: an invalidation that finds no load is older than this one's stamp.
	l.joinable.Add(1)
	f = &flight{load: load, key: string(load.Key.Bytes), stamp: load.Begin(), done: make(chan struct{})}
	f.load.Key.Bytes = []byte(f.key) // the caller's is borrowed
	l.byHash[at] = append(l.byHash[at], f)
	l.stats.UnderWay++
	l.stats.Begun++
	l.wg.Add(1)
	go l.run(f) // ends with the load; Close waits for it
	return f, true, nil
}

// run makes the load. The flight stays in the table until its result is kept,
// so that nobody begins another in between.
func (l *Loads) run(f *flight) {
	defer l.wg.Done()
	ctx, cancel := context.WithTimeout(l.ctx, l.cfg.Timeout)
	defer cancel()
	var value Value
	err := ErrPresent
	if f.load.Missing == nil || f.load.Missing() {
		value, err = fetch(ctx, f.load.Fetch)
	}

	l.mu.Lock()
	detached := f.detached
	l.mu.Unlock()
	absent := errors.Is(err, ErrAbsent)
	f.result = Result{Value: value, Stamp: f.stamp, Absent: absent, Uncached: detached || value.NoStore}
	f.err = err
	if (err == nil || absent) && !f.result.Uncached && f.load.Keep != nil {
		f.result.Uncached = !f.load.Keep(f.result)
	}

	l.mu.Lock()
	// Once more: who detached it during Keep has undone what Keep stored, and
	// those who wait must not store it either.
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

// fetch calls an embedder's code; a panic there is that load's error, since it
// would take the caches of all other namespaces with it.
func fetch(ctx context.Context, f func(context.Context) (Value, error)) (v Value, err error) {
	defer func() {
		if p := recover(); p != nil {
			v, err = Value{}, fmt.Errorf("%w: its source panicked: %v", ErrPermanent, p)
		}
	}()
	return f(ctx)
}

// Detach takes the loads of a hash out of the table: an invalidation, after it
// was stamped. Who waits gets the value, marked; who comes later begins a new
// load. It costs next to nothing while nothing is loaded.
func (l *Loads) Detach(h kv.Hash) {
	if l.joinable.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.detachLocked(h, func(*flight) bool { return true })
}

// DetachIf does the same for all keys that match: a flush, the end of a
// holding. It looks at every load under way.
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

// Stats counts.
func (l *Loads) Stats() LoadsStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

// Close cancels the loads under way, waits for them, and refuses new ones. It
// is idempotent.
func (l *Loads) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.cancel()
	l.wg.Wait()
}
