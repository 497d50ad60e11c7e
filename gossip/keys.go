package gossip

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
)

// keyring makes memberlist's keyring of keys; nil if there are none.
func keyring(keys [][]byte) (*memberlist.Keyring, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	ring, err := memberlist.NewKeyring(keys, keys[0])
	if err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	return ring, nil
}

// SetKeys replaces the keys of a node that was made with keys: the first is in use from
// now on, all are accepted.
func (g *Gossip) SetKeys(keys [][]byte) error {
	g.keys.Lock()
	defer g.keys.Unlock()
	add := func() error {
		for _, k := range keys {
			if err := g.ring.AddKey(slices.Clone(k)); err != nil {
				return fmt.Errorf("gossip: %w", err)
			}
		}
		return nil
	}
	if err := add(); err != nil {
		return err
	}
	if err := g.ring.UseKey(keys[0]); err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	// Only the last key of the ring is ever removed: RemoveKey moves the keys
	// behind the removed one, within a slice that readers of packets use. So the
	// keys behind a removed one are removed too, and added again at once.
	have := g.ring.GetKeys()
	gone := slices.IndexFunc(have, func(k []byte) bool {
		return !slices.ContainsFunc(keys, func(kept []byte) bool { return bytes.Equal(k, kept) })
	})
	for i := len(have) - 1; gone >= 0 && i >= gone; i-- {
		if err := g.ring.RemoveKey(have[i]); err != nil {
			return fmt.Errorf("gossip: %w", err)
		}
	}
	return add()
}

// strangersKey is how often it is logged that another host has another key.
const strangersKey = time.Minute

// otherKeys are memberlist's messages about a node that has another key, or none.
var otherKeys = []string{
	"no installed keys could decrypt", "remote state is not encrypted", "remote state is encrypted",
}

// tellKeys warns if memberlist complains of another node's key.
func (g *Gossip) tellKeys(text string) {
	if !slices.ContainsFunc(otherKeys, func(s string) bool { return strings.Contains(text, s) }) {
		return
	}
	g.keys.Lock()
	defer g.keys.Unlock()
	if now := time.Now(); now.Sub(g.keysTold) >= strangersKey {
		g.keysTold = now
		g.cfg.Log.Warn("another host has no cluster key, or another one: give all hosts the same cluster_key_file, "+
			"and restart those that had none", "memberlist", text)
	}
}
