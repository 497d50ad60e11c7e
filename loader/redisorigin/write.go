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
	TTL time.Duration `yaml:"store_ttl"`
}

// Writer sets and deletes keys. It overwrites a key of another type.
type Writer struct {
	source *Source
	cfg    WriteConfig
}

// NewWriter validates the configuration.
func (s *Source) NewWriter(cfg WriteConfig) (*Writer, error) {
	if cfg.TTL < 0 || cfg.TTL > 0 && cfg.TTL < time.Millisecond {
		return nil, fmt.Errorf("redis origin: a TTL of %v: give zero for none, or at least 1ms", cfg.TTL)
	}
	return &Writer{s, cfg}, nil
}

// Store sets the key to v.Bytes.
func (w *Writer) Store(ctx context.Context, key []byte, v loader.Value) error {
	args := []any{w.source.cfg.KeyPrefix + string(key), v.Bytes}
	if w.cfg.TTL > 0 {
		args = append(args, "PX", w.cfg.TTL.Milliseconds())
	}
	return w.do(ctx, "SET", args...)
}

// Delete removes the key.
func (w *Writer) Delete(ctx context.Context, key []byte) error {
	return w.do(ctx, "DEL", w.source.cfg.KeyPrefix+string(key))
}

func (w *Writer) do(ctx context.Context, command string, args ...any) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", loader.ErrNotWritten, err)
	}
	ctx, cancel := context.WithTimeout(ctx, w.source.cfg.Timeout)
	defer cancel()
	c, err := w.source.get(ctx)
	if err == nil {
		defer w.source.put(c)
		_, err = redis.DoContext(c, ctx, command, args...)
	} else if !errors.As(err, new(dialError)) { // no place in the pool
		return fmt.Errorf("%w: redis origin %s: %w", loader.ErrNotWritten, w.source.cfg.Address, err)
	}
	switch {
	case err == nil:
		return nil
	case refused(err):
		return fmt.Errorf("%w: redis origin %s: %w", loader.ErrNotWritten, w.source.cfg.Address, err)
	}
	return fmt.Errorf("redis origin %s: %w", w.source.cfg.Address, err)
}

// refusals are the errors that mean that the server has not executed a command. "ERR" is
// not one of them, because proxies use it for errors of any kind.
var refusals = []string{
	"ASK", "BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "MOVED", "NOAUTH", "NOPERM",
	"NOREPLICAS", "OOM", "READONLY", "TRYAGAIN", "WRONGPASS",
}

func refused(err error) bool {
	var dial *net.OpError
	return slices.Contains(refusals, code(err)) || errors.As(err, &dial) && dial.Op == "dial"
}
