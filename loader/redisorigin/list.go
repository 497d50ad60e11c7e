package redisorigin

import (
	"context"
	"fmt"
	"strings"

	"github.com/gomodule/redigo/redis"

	"github.com/cachesidecar/cachesidecar/loader"
)

// lister lists the keys that begin with the source's prefix, without the prefix.
type lister struct {
	source *Source
	list   loader.List
}

// NewLister validates the configuration.
func (s *Source) NewLister(list loader.List) (loader.Lister, error) {
	list, err := list.Only("")
	if err != nil {
		return nil, err
	}
	return &lister{s, list}, nil
}

// page is how many keys the server examines per request.
const page = 1000

// Keys lists the keys with SCAN, which returns all keys that exist from its begin to its
// end. It uses one connection of its own: another server may answer on the next
// connection, where the cursor has no meaning, and that server would report the end of
// the list.
func (l *lister) Keys(ctx context.Context, each func(key []byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, l.list.Timeout)
	defer cancel()
	c, err := l.source.dial(ctx)
	if err != nil {
		return l.source.named(err)
	}
	defer c.Close()
	prefix, listing := l.source.cfg.KeyPrefix, l.list.Begin(ctx, each)
	for cursor := uint64(0); ; {
		next, names, err := scanned(redis.Values(
			c.DoContext(ctx, "SCAN", cursor, "MATCH", pattern(prefix), "COUNT", page)))
		if err == nil {
			err = listing.Page()
		}
		if err != nil {
			return l.source.named(err)
		}
		for _, name := range names {
			key, found := strings.CutPrefix(name, prefix)
			if !found {
				return fmt.Errorf("%w: redis origin %s: SCAN gives keys that do not match",
					loader.ErrPermanent, l.source.cfg.Address)
			}
			if err := listing.Key([]byte(key)); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// scanned decodes the reply to SCAN.
func scanned(replies []any, err error) (next uint64, names []string, _ error) {
	if err == nil && len(replies) != 2 {
		err = fmt.Errorf("SCAN gives %d replies", len(replies))
	}
	if err != nil {
		return 0, nil, err
	}
	if next, err = redis.Uint64(replies[0], nil); err != nil { // also if it is nil
		return 0, nil, fmt.Errorf("the cursor of SCAN: %w", err)
	}
	names, err = redis.Strings(replies[1], nil)
	return next, names, err
}

// pattern returns a pattern that matches all names with the given literal prefix.
func pattern(prefix string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`).Replace(prefix) + "*"
}
