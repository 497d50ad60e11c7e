package engine

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// A feed of changes names keys that have changed at the origin. One host follows it, and deletes
// these keys at their owners, whatever these hosts have meanwhile.

// Leads reports whether this host is to do what one host of the cluster does under a name: it owns
// the name's partition. changed is closed when that may have changed.
func (e *Engine) Leads(name string) (leads bool, changed <-chan struct{}) {
	changed = e.Node.Changed() // taken before the state that it tells of is read
	e.Node.CheckPause(e.Clock.Read().Boot)
	partition := e.Namespaces.Hash([]byte("changes"), []byte(name)).Partition()
	return e.Node.OwnershipEpoch(partition) != 0, changed
}

// Now is the boot clock.
func (e *Engine) Now() time.Duration { return e.Clock.Read().Boot }

// Certified says that everything is deleted that readers of a feed's origin saw at a moment, and where its stream
// was then.
func (e *Engine) Certified(feed string, at time.Duration, from loader.Checkpoint) {
	e.Node.Certified(feed, at, string(from))
}

// FeedCheckpoint returns the checkpoint with which a feed was certified last.
func (e *Engine) FeedCheckpoint(feed string) loader.Checkpoint {
	return loader.Checkpoint(e.Node.FeedCheckpoint(feed))
}

// deleteTime bounds one try of a deletion. A flush waits longer: for hosts that are silent.
const deleteTime = time.Second

// Outdate deletes keys from the cache alone. It tries until each owner has done so, or ctx ends.
func (e *Engine) Outdate(ctx context.Context, namespace string, keys [][]byte) error {
	q := &wire.Request{Op: wire.OpDelete, Namespace: []byte(namespace), Keys: keys, Options: wire.LateWrite}
	_, err := e.deleteSurely(ctx, q)
	return err
}

// deleteSurely answers DELETE at the owners of the keys. It tries until each has done so, or ctx ends. The version
// is that of one of the deletions.
func (e *Engine) deleteSurely(ctx context.Context, q *wire.Request) (version uint64, err error) {
	err = e.insist(ctx, deleteTime, func(deadline time.Duration) (done bool) {
		b := namespaces.Pins{Table: e.Namespaces}
		defer b.Release()
		r := e.deleteMany(ctx, q, &b, deadline)
		var left [][]byte
		for i := range r.Items {
			if version = r.Items[i].Version; !deleted(&r.Items[i]) {
				left = append(left, q.Keys[i])
			}
		}
		q.Keys = left
		return len(left) == 0
	})
	return version, err
}

// FlushAll empties a namespace on all hosts. It tries until that is done, or ctx ends.
func (e *Engine) FlushAll(ctx context.Context, namespace string) error {
	return e.insist(ctx, deleteTime+4*e.Node.Bound(), func(deadline time.Duration) (done bool) {
		q := &wire.Request{Op: wire.OpFlush, Namespace: []byte(namespace), Options: wire.Cluster}
		b := namespaces.Pins{Table: e.Namespaces}
		defer b.Release()
		return e.Changes.FlushCluster(ctx, q, &b, deadline).Status == wire.OK
	})
}

// insistFirst is the first pause between two tries. It doubles.
const insistFirst = 10 * time.Millisecond

// insist calls a function until it is done, or ctx ends. Each call has some time.
func (e *Engine) insist(ctx context.Context, each time.Duration, try func(deadline time.Duration) (done bool)) error {
	for pause := insistFirst; !try(e.Clock.Read().Boot + each); pause = min(2*pause, e.Node.Bound()/4) {
		if !kv.Sleep(ctx, pause) {
			return ctx.Err()
		}
	}
	return nil
}
