package peer

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
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
func (k *KeyWatch) Open(cfg KeyWatchConfig) error {
	k.KeyWatchConfig = cfg
	if cfg.Paths.ClusterKey == "" {
		return nil
	}
	content := cfg.Paths.Read()
	set, err := content.Credentials(cfg.Node, cfg.Now())
	if err != nil {
		return err
	}
	k.inUse = content.digest()
	k.set.Store(set)
	return nil
}

// Seed returns the seed of the hash; zero without files.
func (k *KeyWatch) Seed() uint64 {
	if set := k.set.Load(); set != nil {
		return set.Seed
	}
	return 0
}

// Run checks the files every LookEvery until ctx ends.
func (k *KeyWatch) Run(ctx context.Context) {
	t := time.NewTicker(LookEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if err := k.look(false); err != nil {
				k.Log.Error("the cluster key's files have changed, and are not taken: "+
					"this host goes on with what it had", "error", err)
			}
		}
	}
}

// Reload takes the files as they are now, without the wait for a second check.
func (k *KeyWatch) Reload() error {
	if k.Paths.ClusterKey == "" {
		return nil
	}
	return k.look(true)
}

// look takes a change of the files: one that the previous look has seen too, or any if
// told. Contents that are in use are not taken again: no connection is renewed for nothing.
// A refused content is tried again, because a certificate may become valid later. Its error
// is returned once for each content, or always if told.
func (k *KeyWatch) look(told bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	content := k.Paths.Read()
	digest := content.digest()
	settled := told || digest == k.seen
	k.seen = digest
	switch {
	case !settled:
		return nil
	case digest == k.inUse:
		k.rejected = [32]byte{}
		return nil
	}
	again := k.rejected == digest
	if err := k.takeContent(content, digest); told || !again {
		return err
	}
	return nil
}

// takeContent applies the content, or changes nothing and returns an error. k.mu is held.
func (k *KeyWatch) takeContent(content *keyContent, digest [32]byte) error {
	set, err := content.Credentials(k.Node, k.Now())
	if old := k.set.Load(); err == nil && set.Seed != old.Seed {
		err = fmt.Errorf("cluster_key_file %s: the seed is another one, and it places every key: "+
			"put the line back that this host has started with, or stop all hosts, give them the new file, "+
			"and start them", k.Paths.ClusterKey)
	}
	if err != nil {
		if k.rejected != digest {
			k.refused.Add(1)
		}
		k.rejected = digest
		return err
	}
	k.inUse, k.rejected = digest, [32]byte{}
	k.set.Store(set)
	k.taken.Add(1)
	k.Renew()
	k.Log.Info("cluster keys and certificates are read", "keys", set.Keys, "first", set.Fingerprint)
	return nil
}

// Changes returns how many changes of the files were taken, and how many were refused.
func (k *KeyWatch) Changes() (taken, refused int64) { return k.taken.Load(), k.refused.Load() }

// Present returns the credentials that were taken last; nil without files.
func (k *KeyWatch) Present() *Credentials { return k.set.Load() }

// Source returns a function that returns them. Without files it is nil, as package cluster
// expects it.
func (k *KeyWatch) Source() func() *Credentials {
	if k.set.Load() == nil {
		return nil
	}
	return k.set.Load
}
