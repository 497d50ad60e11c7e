package creds

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/peer"
)

// LookEvery is the interval at which the files are checked. A change is taken after two
// checks in a row have seen the same content, so that a half-written file is never
// taken.
const LookEvery = 2 * time.Second

// Compile-time check of a limit: certificate files may have as many certificates as
// other hosts accept.
var _ [MaxChain]struct{} = [peer.MaxChain]struct{}{}

// Watch keeps the credentials of this process current with its files. Set Renew before
// Run or Reload. Its methods are safe for concurrent use after Open.
type Watch struct {
	WatchConfig
	Renew func() // called after each change that is taken

	set  atomic.Pointer[Set]              // nil without files
	peer atomic.Pointer[peer.Credentials] // the same, for package peer

	taken, refused atomic.Int64 // changes of the files, counted

	mu   sync.Mutex // one check at a time
	last [32]byte   // the content that the last check saw
	had  [32]byte   // the content that was taken last
	told [32]byte   // the content that was refused last, since then
}

// WatchConfig has the paths of the files and the node that they are for.
type WatchConfig struct {
	Paths Paths // without ClusterKey nothing is watched
	Node  string
	Now   func() time.Time
	Log   *slog.Logger
}

// Open reads the files for the first time. Call it before any other method.
func (k *Watch) Open(cfg WatchConfig) error {
	k.WatchConfig = cfg
	if cfg.Paths.ClusterKey == "" {
		return nil
	}
	content := cfg.Paths.Read()
	set, err := content.Set(cfg.Node, cfg.Now())
	if err != nil {
		return err
	}
	k.had = content.Digest()
	k.store(set)
	return nil
}

func (k *Watch) store(set *Set) {
	k.set.Store(set)
	k.peer.Store(&peer.Credentials{
		Certificate: set.Certificate, Roots: set.Roots, Trusted: set.Trusted, Names: set.Names,
	})
}

// Gossip returns the keys of gossip; the first is in use. It must not be called without
// a cluster key.
func (k *Watch) Gossip() [][]byte { return k.set.Load().Gossip }

// Seed returns the seed of the hash; zero without files.
func (k *Watch) Seed() uint64 {
	if set := k.set.Load(); set != nil {
		return set.Seed
	}
	return 0
}

// Run checks the files every LookEvery until ctx ends.
func (k *Watch) Run(ctx context.Context) {
	t := time.NewTicker(LookEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if err := k.look(); err != nil {
				k.Log.Error("the cluster key's files have changed, and are not taken: "+
					"this host goes on with what it had", "error", err)
			}
		}
	}
}

// look takes a change that the previous check has seen too. A refused content is tried
// again, because a certificate may become valid later. Its error is returned once for
// each content.
func (k *Watch) look() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	content := k.Paths.Read()
	digest := content.Digest()
	settled := digest == k.last
	k.last = digest
	switch {
	case !settled:
		return nil
	case digest == k.had:
		k.told = [32]byte{}
		return nil
	}
	told := k.told == digest
	if err := k.take(content, digest); !told {
		return err
	}
	return nil
}

// Reload takes the files as they are now, without the wait for a second check.
func (k *Watch) Reload() error {
	if k.Paths.ClusterKey == "" {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	content := k.Paths.Read()
	return k.take(content, content.Digest())
}

// take applies the content, or changes nothing and returns an error. k.mu is held.
func (k *Watch) take(content *Content, digest [32]byte) error {
	set, err := content.Set(k.Node, k.Now())
	if old := k.set.Load(); err == nil && set.Seed != old.Seed {
		err = fmt.Errorf("cluster_key_file %s: the seed is another one, and it places every key: "+
			"put the line back that this host has started with, or stop all hosts, give them the new file, and start them",
			k.Paths.ClusterKey)
	}
	if err != nil {
		if k.told != digest {
			k.refused.Add(1)
		}
		k.told = digest
		return err
	}
	k.had, k.told = digest, [32]byte{}
	k.store(set)
	k.taken.Add(1)
	k.Renew()
	k.Log.Info("cluster keys and certificates are read", "keys", set.Keys, "first", set.Fingerprint)
	return nil
}

// Changes returns how many changes of the files were taken, and how many were refused.
func (k *Watch) Changes() (taken, refused int64) { return k.taken.Load(), k.refused.Load() }

// Present returns the credentials that were taken last; nil without files.
func (k *Watch) Present() *Set { return k.set.Load() }

// Credentials returns the same for connections between hosts; nil without files.
func (k *Watch) Credentials() *peer.Credentials { return k.peer.Load() }
