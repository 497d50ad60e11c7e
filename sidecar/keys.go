package sidecar

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/creds"
	"github.com/cachesidecar/cachesidecar/internal/peer"
)

// TLSFiles are certificate files in PEM. All three are given, or none, and the
// cluster key file with them.
type TLSFiles struct {
	Cert string `yaml:"cert"` // the chain; its first names this node in a DNS name
	Key  string `yaml:"key"`  // its private key
	CA   string `yaml:"ca"`   // whose certificates are accepted
}

// lookEvery is how often the files are looked at. A change counts once two looks
// in a row have seen the same, so that nobody takes half a file.
const lookEvery = 2 * time.Second

func (c *Config) paths() creds.Paths {
	return creds.Paths{ClusterKey: c.ClusterKeyFile, Cert: c.TLS.Cert, Key: c.TLS.Key, CA: c.TLS.CA}
}

// credentials reads the files; nil where there are none.
func (c *Config) credentials() (*creds.Set, error) {
	if c.ClusterKeyFile == "" {
		return nil, nil
	}
	return c.paths().Read().Set(c.Node, wallTime(c.Clock.Read().Wall))
}

func wallTime(ms int64) time.Time { return time.UnixMilli(ms) }

// Files hold as many certificates as other hosts take.
var _ [creds.MaxChain]struct{} = [peer.MaxChain]struct{}{}

// keys are what this process shows other hosts and accepts of them, as its files
// say it.
type keys struct {
	cfg   *Config
	renew func() // takes what has changed

	set  atomic.Pointer[creds.Set]        // nil without files
	peer atomic.Pointer[peer.Credentials] // the same

	taken, refused atomic.Int64 // changes of the files

	mu   sync.Mutex // one look at a time
	last [32]byte   // what the last look saw
	had  [32]byte   // what was last taken
	told [32]byte   // what was last refused since
}

// open reads the files for the first time.
func (k *keys) open(cfg *Config) error {
	k.cfg = cfg
	if cfg.ClusterKeyFile == "" {
		return nil
	}
	content := cfg.paths().Read()
	set, err := content.Set(cfg.Node, wallTime(cfg.Clock.Read().Wall))
	if err != nil {
		return err
	}
	k.had = content.Digest()
	k.store(set)
	return nil
}

func (k *keys) store(set *creds.Set) {
	k.set.Store(set)
	k.peer.Store(&peer.Credentials{Certificate: set.Certificate, Roots: set.Roots, Trusted: set.Trusted, Names: set.Names})
}

// gossip are the keys of gossip, the one in use first.
func (k *keys) gossip() [][]byte { return k.set.Load().Gossip }

// seed is that of the hash.
func (k *keys) seed() uint64 {
	if set := k.set.Load(); set != nil {
		return set.Seed
	}
	return 0
}

// run looks at the files until ctx ends.
func (k *keys) run(ctx context.Context) {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if err := k.look(); err != nil {
				k.cfg.Log.Error("the cluster key's files have changed, and are not taken: this host goes on with what it had", "error", err)
			}
		}
	}
}

// look takes a change that the look before has seen too. What is refused is tried
// again, since a certificate may be good later; an error is told once for each
// content.
func (k *keys) look() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	content := k.cfg.paths().Read()
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

// reload takes the files as they are now.
func (k *keys) reload() error {
	if k.cfg.ClusterKeyFile == "" {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	content := k.cfg.paths().Read()
	return k.take(content, content.Digest())
}

// take makes the files' content what counts, or changes nothing. The lock is held.
func (k *keys) take(content *creds.Content, digest [32]byte) error {
	set, err := content.Set(k.cfg.Node, wallTime(k.cfg.Clock.Read().Wall))
	if old := k.set.Load(); err == nil && set.Seed != old.Seed {
		err = fmt.Errorf("cluster_key_file %s: the seed is another one, and it places every key: put the line back that this host has started with, or stop all hosts, give them the new file, and start them", k.cfg.ClusterKeyFile)
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
	k.renew()
	k.cfg.Log.Info("cluster keys and certificates are read", "keys", set.Keys, "first", set.Fingerprint)
	return nil
}

// Reload reads the cluster key file and the certificate files again, as the watch
// of the files does within 5 s of a change. An error says why what they hold is
// not taken; then nothing has changed. Without such files there is nothing to do.
func (s *Sidecar) Reload() error { return s.keys.reload() }
