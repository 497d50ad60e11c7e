package hosts

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cachesidecar/cachesidecar"
)

// What happens to a random run again and again, beside one of the faults at a time: values are
// evicted, and settings are reloaded.

// smallQuota is the quota of a namespace whose values are evicted, in bytes.
const smallQuota = 64 << 10

// evictions evicts what one host owns after the other, until ctx ends. The namespace has a small
// quota.
func (w *world) evictions(ctx context.Context) {
	rnd := rand.New(rand.NewPCG(w.seed, 96))
	for ctx.Err() == nil {
		pauseFor(ctx, time.Duration(rnd.IntN(1000))*time.Millisecond)
		if s, _, _ := w.any(rnd); s != nil {
			w.crowd(s)
		}
	}
}

// crowd stores a value that fills the quota of the keys' namespace at a host, in place of all
// others. It counts the keys that were evicted.
func (w *world) crowd(s *Sidecar) {
	owns := func(key string) bool {
		return s.engine.Node.OwnershipEpoch(s.engine.Namespaces.Hash([]byte(w.space), []byte(key)).Partition()) != 0
	}
	for i := range 100 {
		key := fmt.Sprint("large", i)
		if !owns(key) {
			continue
		}
		began, before := time.Now(), w.stored(s)
		_, _ = s.Set(context.Background(), w.space, key, make([]byte, smallQuota-100), cachesidecar.SetOptions{})
		if n := before - w.stored(s); n > 0 && time.Now().Equal(began) { // else other changes may have come between
			w.mu.Lock()
			w.seen["evicted"] += n
			w.mu.Unlock()
		}
		return
	}
}

// stored returns how many of the keys are in a host's store.
func (w *world) stored(s *Sidecar) (n int64) {
	leave, open := s.parts.Host.Enter()
	if !open {
		return 0
	}
	defer leave()
	ns, now := s.engine.Namespaces.Lookup([]byte(w.space)), s.engine.Clock.Read().Boot
	for _, k := range w.keys {
		if _, there := s.engine.Store.Peek(ns.Key(k.name), now); there {
			n++
		}
	}
	return n
}

// variants change a setting of a namespace in a way that the promise allows on one host alone.
var variants = []func(ns *Namespace){
	func(ns *Namespace) { ns.Quota = smallQuota - ns.Quota },
	func(ns *Namespace) { ns.Shared = new(bool) },
	func(ns *Namespace) { ns.StaleLimit = new(time.Duration) }, // soft deletions are hard ones
	func(ns *Namespace) { ns.LeaseTime = 200 * time.Millisecond },
	func(ns *Namespace) { ns.ReplicaLag += 300 * time.Millisecond },
}

// reloads changes a setting of one host for a while, again and again, until ctx ends.
func (w *world) reloads(ctx context.Context) {
	rnd := rand.New(rand.NewPCG(w.seed, 95))
	for ctx.Err() == nil {
		pauseFor(ctx, time.Duration(rnd.IntN(4000))*time.Millisecond)
		s, _, _ := w.any(rnd)
		if s == nil {
			continue
		}
		ns := w.ns
		variants[rnd.IntN(len(variants))](&ns)
		w.reload(s, ns)
		pauseFor(ctx, time.Duration(rnd.IntN(2000))*time.Millisecond)
		w.reload(s, w.ns)
	}
}

// reload gives the keys' namespace other settings on one host.
func (w *world) reload(s *Sidecar, ns Namespace) {
	cfg := s.cfg
	cfg.Namespaces = w.configured(ns)
	_, err := s.Apply(context.Background(), cfg)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil:
		w.seen["reloads"]++
	case !errors.Is(err, cachesidecar.ErrClosed):
		w.breaks("a reload: %v", err)
	}
}
