package redisorigin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/gomodule/redigo/redis"

	"github.com/cachesidecar/cachesidecar/loader"
)

// WriteConfig has the settings of stored values.
type WriteConfig struct {
	// TTL is the TTL of values that are written through. Default: no expiry. Bounds: from
	// 1ms.
	TTL time.Duration `yaml:"store_ttl" answers:"yes"`
}

func (write *WriteConfig) check() error {
	if write.TTL < 0 || write.TTL > 0 && write.TTL < time.Millisecond {
		return fmt.Errorf("redis origin: a TTL of %v: give zero for none, or at least 1ms", write.TTL)
	}
	return nil
}

// Store sets the key to v.Bytes. It overwrites a key of another type.
func (s *Source) Store(ctx context.Context, key []byte, v loader.Value) error {
	args := []any{s.cfg.KeyPrefix + string(key), v.Bytes}
	if s.cfg.Write.TTL > 0 {
		args = append(args, "PX", s.cfg.Write.TTL.Milliseconds())
	}
	return s.write(ctx, "SET", args...)
}

// Delete removes the key.
func (s *Source) Delete(ctx context.Context, key []byte) error {
	return s.write(ctx, "DEL", s.cfg.KeyPrefix+string(key))
}

func (s *Source) write(ctx context.Context, command string, args ...any) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", loader.ErrNotWritten, err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	c, err := s.get(ctx)
	if err == nil {
		defer s.put(c)
		_, err = redis.DoContext(c, ctx, command, args...)
	} else if !errors.As(err, new(dialError)) { // no place in the pool
		return fmt.Errorf("%w: %w", loader.ErrNotWritten, s.named(err))
	}
	switch {
	case err == nil:
		return nil
	case refused(err):
		return fmt.Errorf("%w: %w", loader.ErrNotWritten, s.named(err))
	}
	return s.named(err)
}

// refusals are the errors that mean that the server has not executed a command. "ERR" is
// not one of them, because proxies use it for errors of any kind.
var refusals = []string{
	"ASK", "BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "MOVED", "NOAUTH", "NOPERM",
	"NOREPLICAS", "OOM", "READONLY", "TRYAGAIN", "WRONGPASS", maxClients,
}

func refused(err error) bool {
	var dial *net.OpError
	return slices.Contains(refusals, code(err)) || errors.As(err, &dial) && dial.Op == "dial"
}
