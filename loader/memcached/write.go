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

// WriteConfig has the settings of stored values.
type WriteConfig struct {
	// TTL is the TTL of values that are written through. Default: no expiry. Bounds: whole
	// seconds up to 720h.
	TTL time.Duration `yaml:"store_ttl"`
}

// maxTTL is the number of seconds above which memcached takes a TTL for a date.
const maxTTL = 30 * 24 * time.Hour

// Writer sets and deletes items.
type Writer struct {
	source *Source
	ttl    int32 // seconds
}

// NewWriter validates the configuration.
func (s *Source) NewWriter(cfg WriteConfig) (*Writer, error) {
	if cfg.TTL < 0 || cfg.TTL > maxTTL || cfg.TTL%time.Second != 0 {
		return nil, fmt.Errorf("memcached origin: a TTL of %v: give zero for none, or whole seconds up to %v",
			cfg.TTL, maxTTL)
	}
	return &Writer{s, int32(cfg.TTL / time.Second)}, nil
}

// Store sets the item, with the flags of v.
func (w *Writer) Store(ctx context.Context, key []byte, v loader.Value) error {
	return w.do(ctx, func() error {
		return w.source.client.Set(&memcache.Item{
			Key: w.source.cfg.KeyPrefix + string(key), Value: v.Bytes, Flags: v.Flags, Expiration: w.ttl,
		})
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

// do runs a write and classifies its error. An error from the server leaves the outcome
// unknown: if a value does not fit, memcached drops the previous value.
func (w *Writer) do(ctx context.Context, write func() error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", loader.ErrNotWritten, err)
	}
	err := retryEndedConn(write)
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
