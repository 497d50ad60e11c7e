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

// LookEvery is how often the files are looked at. A change counts once two looks
// in a row have seen the same, so that nobody takes half a file.
const LookEvery = 2 * time.Second

// Files hold as many certificates as other hosts take.
var _ [MaxChain]struct{} = [peer.MaxChain]struct{}{}

// Watch are what this process shows other hosts and accepts of them, as its files
// say it.
type Watch struct {
	WatchConfig
	Renew func() // takes what has changed

	set  atomic.Pointer[Set]              // nil without files
	peer atomic.Pointer[peer.Credentials] // the same

	taken, refused atomic.Int64 // changes of the files

	mu   sync.Mutex // one look at a time
	last [32]byte   // what the last look saw
	had  [32]byte   // what was last taken
	told [32]byte   // what was last refused since
}

// WatchConfig is where the files are, and whose they are.
type WatchConfig struct {
	Paths Paths // without a cluster key there is nothing to watch
	Node  string
	Now   func() time.Time
	Log   *slog.Logger
}

// Open reads the files for the first time.
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
	k.peer.Store(&peer.Credentials{Certificate: set.Certificate, Roots: set.Roots, Trusted: set.Trusted, Names: set.Names})
}

// Gossip are the keys of gossip, the one in use first.
func (k *Watch) Gossip() [][]byte { return k.set.Load().Gossip }

// Seed is that of the hash.
func (k *Watch) Seed() uint64 {
	if set := k.set.Load(); set != nil {
		return set.Seed
	}
	return 0
}

// Run looks at the files until ctx ends.
func (k *Watch) Run(ctx context.Context) {
	t := time.NewTicker(LookEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if err := k.look(); err != nil {
				k.Log.Error("the cluster key's files have changed, and are not taken: this host goes on with what it had", "error", err)
			}
		}
	}
}

// look takes a change that the look before has seen too. What is refused is tried
// again, since a certificate may be good later; an error is told once for each
// content.
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

// Reload takes the files as they are now.
func (k *Watch) Reload() error {
	if k.Paths.ClusterKey == "" {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	content := k.Paths.Read()
	return k.take(content, content.Digest())
}

// take makes the files' content what counts, or changes nothing. The lock is held.
func (k *Watch) take(content *Content, digest [32]byte) error {
	set, err := content.Set(k.Node, k.Now())
	if old := k.set.Load(); err == nil && set.Seed != old.Seed {
		err = fmt.Errorf("cluster_key_file %s: the seed is another one, and it places every key: put the line back that this host has started with, or stop all hosts, give them the new file, and start them", k.Paths.ClusterKey)
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

// Changes counts those of the files that were taken, and refused.
func (k *Watch) Changes() (taken, refused int64) { return k.taken.Load(), k.refused.Load() }

// Present is what the files had when they were last taken; nil without files.
func (k *Watch) Present() *Set { return k.set.Load() }

// Credentials are the same for connections between hosts.
func (k *Watch) Credentials() *peer.Credentials { return k.peer.Load() }
