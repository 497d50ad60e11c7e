package peer

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// LookEvery is the interval at which the files are checked. A change is taken after two
// checks in a row have seen the same content, so that a half-written file is never
// taken.
const LookEvery = 2 * time.Second

// KeyWatch keeps the credentials of this process current with its files. Set Renew before
// Run or Reload. Its methods are safe for concurrent use after Open.
type KeyWatch struct {
	KeyWatchConfig
	Renew func() // called after each change that is taken

	set atomic.Pointer[Credentials] // nil without files

	taken, refused atomic.Int64 // changes of the files, counted

	mu       sync.Mutex // one check at a time
	seen     [32]byte   // the content that the last check saw
	inUse    [32]byte   // the content that was taken last
	rejected [32]byte   // the content that was refused last, since then
}

// KeyWatchConfig has the paths of the files and the node that they are for.
type KeyWatchConfig struct {
	Paths KeyPaths // without ClusterKey nothing is watched
	Node  string
	Now   func() time.Time
	Log   *slog.Logger
}

// Open reads the files for the first time. Call it before any other method.
func (w *KeyWatch) Open(cfg KeyWatchConfig) error {
	w.KeyWatchConfig = cfg
	if cfg.Paths.ClusterKey == "" {
		return nil
	}
	content := cfg.Paths.Read()
	set, err := content.Credentials(cfg.Node, cfg.Now())
	if err != nil {
		return err
	}
	w.inUse = content.digest()
	w.set.Store(set)
	return nil
}

// Seed returns the seed of the hash; zero without files.
func (w *KeyWatch) Seed() uint64 {
	if set := w.set.Load(); set != nil {
		return set.Seed
	}
	return 0
}

// Run checks the files every LookEvery until ctx ends.
func (w *KeyWatch) Run(ctx context.Context) {
	for range kv.Every(ctx, LookEvery) {
		if err := w.look(false); err != nil {
			w.Log.Error("the cluster key's files have changed, and are not taken: "+
				"this host goes on with what it had", "error", err)
		}
	}
}

// Reload takes the files as they are now, without the wait for a second check.
func (w *KeyWatch) Reload() error {
	if w.Paths.ClusterKey == "" {
		return nil
	}
	return w.look(true)
}

// look takes a change of the files: one that the previous look has seen too, or any if
// told. Contents that are in use are not taken again: no connection is renewed for nothing.
// A refused content is tried again, because a certificate may become valid later. Its error
// is returned once for each content, or always if told.
func (w *KeyWatch) look(told bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	content := w.Paths.Read()
	digest := content.digest()
	settled := told || digest == w.seen
	w.seen = digest
	switch {
	case !settled:
		return nil
	case digest == w.inUse:
		w.rejected = [32]byte{}
		return nil
	}
	again := w.rejected == digest
	if err := w.takeContent(content, digest); told || !again {
		return err
	}
	return nil
}

// takeContent applies the content, or changes nothing and returns an error. w.mu is held.
func (w *KeyWatch) takeContent(content *keyContent, digest [32]byte) error {
	set, err := content.Credentials(w.Node, w.Now())
	if old := w.set.Load(); err == nil && set.Seed != old.Seed {
		err = fmt.Errorf("cluster_key_file %s: the seed is another one, and it places every key: "+
			"put the line back that this host has started with, or stop all hosts, give them the new file, "+
			"and start them", w.Paths.ClusterKey)
	}
	if err != nil {
		if w.rejected != digest {
			w.refused.Add(1)
		}
		w.rejected = digest
		return err
	}
	w.inUse, w.rejected = digest, [32]byte{}
	w.set.Store(set)
	w.taken.Add(1)
	w.Renew()
	w.Log.Info("cluster keys and certificates are read", "keys", set.Keys, "first", set.Fingerprint)
	return nil
}

// Changes returns how many changes of the files were taken, and how many were refused.
func (w *KeyWatch) Changes() (taken, refused int64) { return w.taken.Load(), w.refused.Load() }

// Present returns the credentials that were taken last; nil without files.
func (w *KeyWatch) Present() *Credentials { return w.set.Load() }

// Source returns a function that returns them. Without files it is nil, as package cluster
// expects it.
func (w *KeyWatch) Source() func() *Credentials {
	if w.set.Load() == nil {
		return nil
	}
	return w.set.Load
}
