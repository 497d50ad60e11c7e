package memcached

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/cachesidecar/cachesidecar/loader"
)

// WriteConfig describes how values are stored.
type WriteConfig struct {
	TTL time.Duration `yaml:"store_ttl"` // of what is written through, in whole seconds up to 30 days; default: no expiry
}

// maxTTL is where memcached begins to take a number of seconds for a date.
const maxTTL = 30 * 24 * time.Hour

// Writer sets and deletes items.
type Writer struct {
	source *Source
	ttl    int32 // seconds
}

// NewWriter checks the configuration.
func (s *Source) NewWriter(cfg WriteConfig) (*Writer, error) {
	if cfg.TTL < 0 || cfg.TTL > maxTTL || cfg.TTL%time.Second != 0 {
		return nil, fmt.Errorf("memcached origin: a TTL of %v: give zero for none, or whole seconds up to %v", cfg.TTL, maxTTL)
	}
	return &Writer{s, int32(cfg.TTL / time.Second)}, nil
}

// Store sets the item, with its flags.
func (w *Writer) Store(ctx context.Context, key []byte, v loader.Value) error {
	return w.do(ctx, func() error {
		return w.source.client.Set(&memcache.Item{Key: w.source.cfg.KeyPrefix + string(key), Value: v.Bytes, Flags: v.Flags, Expiration: w.ttl})
	})
}

// Delete removes the item.
func (w *Writer) Delete(ctx context.Context, key []byte) error {
	return w.do(ctx, func() error {
		if err := w.source.client.Delete(w.source.cfg.KeyPrefix + string(key)); !errors.Is(err, memcache.ErrCacheMiss) {
			return err
		}
		return nil
	})
}

// do sorts errors. One that the server answers leaves the outcome unknown: where
// a value does not fit, memcached drops the one before.
func (w *Writer) do(ctx context.Context, write func() error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", loader.ErrNotWritten, err)
	}
	err := write()
	var dial *net.OpError
	var slow *memcache.ConnectTimeoutError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, memcache.ErrMalformedKey):
		return fmt.Errorf("%w: %w: %s", loader.ErrNotWritten, loader.ErrBadKey, malformed)
	case errors.As(err, &slow), errors.As(err, &dial) && dial.Op == "dial":
		return fmt.Errorf("%w: memcached origin: %w", loader.ErrNotWritten, err)
	}
	return fmt.Errorf("memcached origin: %w", err)
}
