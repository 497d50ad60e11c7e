package client

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// LoadOptions configures a GetOrLoad. The zero value uses the namespace's TTL.
type LoadOptions struct {
	TTL      time.Duration // of the value: at most 365 days, rounded up to ms
	NoExpiry bool
	Flags    uint32 // of the loaded value
	StaleOK  bool   // take a stale value, marked so, rather than wait for another load
	Fresh    bool   // ask the key's owner, read no copy
}

// loads makes sure that this process asks for a key, or loads it, only once at a time.
//
// A caller may share only a question that was not yet sent when the caller came. An
// answer under way may be older than a write that the caller knows of, also a write by
// another process. So each key has one flight under way, and callers that come meanwhile
// gather for the next flight. A flight that gets a lease no longer counts as under way:
// from then on the sidecar lets other callers wait for the fill or, if the key changes,
// begin a new load.
type loads struct {
	mu     sync.Mutex
	closed bool
	n      int // flights, including those that gather callers
	keys   map[loadKey]*queue
}

type loadKey struct {
	namespace, key string
	bits           wire.Options // only callers with the same options share
}

// queue is the state of a key that has a flight under way.
type queue struct{ next *flight } // gathers callers; nil until the first one comes

// flight is one question to the sidecar, followed by a load if one is needed, for all
// callers that came before it began.
type flight struct {
	key     string
	load    func(context.Context, string) ([]byte, error)
	options LoadOptions
	alone   bool // do not ask the sidecar
	ctx     context.Context
	callers int // under loads.mu until the flight begins

	done chan struct{}
	item cachesidecar.Item
	err  error
}

func (l *loads) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
}

func (o LoadOptions) get() cachesidecar.GetOptions {
	return cachesidecar.GetOptions{Fresh: o.Fresh, StaleOK: o.StaleOK}
}

// loading is what a load loads, in its context.
type loading struct {
	loads          *loads
	namespace, key string
	within         *loading // the load that has begun it
	over           atomic.Bool
}

type loadingKey struct{}

// context returns the context of the load of a key, and what to call when the load has ended: a
// goroutine that it has left running does not load any more.
func (l *loads) context(ctx context.Context, namespace, key string) (load context.Context, ended func()) {
	within, _ := ctx.Value(loadingKey{}).(*loading)
	for within != nil && within.over.Load() {
		within = within.within
	}
	at := &loading{loads: l, namespace: namespace, key: key, within: within}
	return context.WithValue(ctx, loadingKey{}, at), func() { at.over.Store(true) }
}

// refuseOwn returns an error if a load asks for a key that it loads itself.
func (l *loads) refuseOwn(ctx context.Context, namespace, key string) error {
	for at, _ := ctx.Value(loadingKey{}).(*loading); at != nil; at = at.within {
		if !at.over.Load() && at.loads == l && at.namespace == namespace && at.key == key {
			return fmt.Errorf("%w: the load of %q asks for the same key, and would wait for itself: "+
				"let it return the value", cachesidecar.ErrBadRequest, key)
		}
	}
	return nil
}
