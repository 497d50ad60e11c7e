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
	TTL time.Duration `yaml:"store_ttl" answers:"yes"`
}

// maxTTL is the number of seconds above which memcached takes a TTL for a date.
const maxTTL = 30 * 24 * time.Hour

func (write *WriteConfig) check() error {
	if write.TTL < 0 || write.TTL > maxTTL || write.TTL%time.Second != 0 {
		return fmt.Errorf("memcached origin: a TTL of %v: give zero for none, or whole seconds up to %v",
			write.TTL, maxTTL)
	}
	return nil
}

// Store sets the item, with the flags of v.
func (s *Source) Store(ctx context.Context, key []byte, v loader.Value) error {
	return s.do(ctx, func() error {
		return s.client.Set(&memcache.Item{
			Key: s.cfg.KeyPrefix + string(key), Value: v.Bytes, Flags: v.Flags,
			Expiration: int32(s.cfg.Write.TTL / time.Second),
		})
	})
}

// Delete removes the item.
func (s *Source) Delete(ctx context.Context, key []byte) error {
	return s.do(ctx, func() error {
		if err := s.client.Delete(s.cfg.KeyPrefix + string(key)); !errors.Is(err, memcache.ErrCacheMiss) {
			return err
		}
		return nil
	})
}

// do runs a write and classifies its error. An error from the server leaves the outcome
// unknown: if a value does not fit, memcached drops the previous value.
func (s *Source) do(ctx context.Context, write func() error) error {
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
