package redisorigin

import (
	"context"
	"fmt"
	"strings"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Lister gives the keys that begin with the source's prefix, without it.
type Lister struct {
	source *Source
	list   loader.List
}

// NewLister checks the configuration.
func (s *Source) NewLister(list loader.List) (*Lister, error) {
	list, err := list.Only("")
	if err != nil {
		return nil, err
	}
	return &Lister{s, list}, nil
}

// page is how many keys the server looks at for one request.
const page = 1000

// Keys asks with SCAN, which gives all keys that are there from its beginning to
// its end. It keeps to one connection of its own: a cursor means nothing to the
// server that may answer at the next one, which would say that it has no more.
func (l *Lister) Keys(ctx context.Context, each func(key []byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, l.list.Timeout)
	defer cancel()
	client := l.source.newClient(1)
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
