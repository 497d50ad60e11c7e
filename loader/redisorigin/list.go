package redisorigin

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// ListConfig describes the listing of keys.
type ListConfig struct {
	Timeout time.Duration // of all; each request has the source's; zero: loader.ListTimeout
}

// Lister gives the keys that begin with the source's prefix, without it.
type Lister struct {
	source *Source
	cfg    ListConfig
}

// NewLister checks the configuration.
func (s *Source) NewLister(cfg ListConfig) (*Lister, error) {
	if cfg.Timeout < 0 {
		return nil, fmt.Errorf("redis origin: timeout %v of the list: give zero for %v, or more", cfg.Timeout, loader.ListTimeout)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = loader.ListTimeout
	}
	return &Lister{s, cfg}, nil
}

// page is how many keys the server looks at for one request.
const page = 1000

// Keys asks with SCAN, which gives all keys that are there from its beginning to
// its end. It keeps to one connection of its own: a cursor means nothing to the
// server that may answer at the next one, which would say that it has no more.
func (l *Lister) Keys(ctx context.Context, each func(key []byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	client := newClient(l.source.cfg, 1)
	defer client.Close()
	conn := client.Conn()
	defer conn.Close()
	prefix := l.source.cfg.KeyPrefix
	for cursor := uint64(0); ; {
		names, next, err := conn.Scan(ctx, cursor, pattern(prefix), page).Result()
		if err != nil {
			return fmt.Errorf("redis origin %s: %w", l.source.cfg.Address, err)
		}
		for _, name := range names {
			key, found := strings.CutPrefix(name, prefix)
			if !found {
				return fmt.Errorf("%w: redis origin %s: SCAN gives keys that do not match", loader.ErrPermanent, l.source.cfg.Address)
			}
			if !kv.ValidKey([]byte(key)) {
				continue
			}
			if err := each([]byte(key)); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// pattern matches all names with a prefix, taken as it is.
func pattern(prefix string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`).Replace(prefix) + "*"
}
