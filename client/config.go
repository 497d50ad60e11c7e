package client

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Config configures a Client. The zero value is right for most apps.
type Config struct {
	// Socket is the path of the sidecar's socket. Default: $CACHESIDECAR_SOCKET, else the
	// first existing socket in /run/cachesidecar, $XDG_RUNTIME_DIR/cachesidecar and
	// /tmp/cachesidecar-$UID.
	Socket string
	// Namespace is the namespace of calls. Default "default".
	Namespace string
	// Name identifies this app to the sidecar's operators. Default: none.
	Name string
	// Token is a secret that the sidecar's configuration names. It adds rights to those
	// of this process's user. Default: none.
	Token string
	// TokenFile is the path of a file that contains the token, in place of Token. The
	// client reads it for each connection, so that it finds a new token. Only this
	// process's user, its group and root may read the file.
	TokenFile string
	// Conns is the number of connections. Default 1: the sidecar serves a few hundred
	// thousand calls a second of one connection, and a goroutine that calls alone is a third
	// faster than over two. All calls of one key share one connection.
	Conns int
	// DialTimeout bounds one attempt to connect. Default 250 ms.
	DialTimeout time.Duration
	// RequestTimeout bounds calls whose context has no deadline. Default 1 s.
	RequestTimeout time.Duration
	// LoadTimeout bounds the function of a GetOrLoad. Default 30 s. If the function takes
	// longer than the sidecars' lease_time (10 s unless set), GetOrLoad returns its
	// value, but the value is not kept.
	LoadTimeout time.Duration
	// WaitTimeout bounds how long a GetOrLoad waits for another process that loads the
	// same key; after that it calls its own function. Default 10 s. It waits in steps of
	// RequestTimeout, at least one step.
	WaitTimeout time.Duration
	// MaxCalls bounds the calls in flight of one connection; a call above it returns
	// ErrBusy. Default 1,024.
	MaxCalls int
	// MaxLoads bounds the keys that GetOrLoad asks for or loads at one time; a key above
	// it returns ErrBusy. Default 4,096.
	MaxLoads int
	// FailClosed makes GetOrLoad return the error if the sidecar cannot be reached, is
	// too busy or does not answer in time. Default: GetOrLoad calls its function, and the
	// loaded value is not kept.
	FailClosed bool
	// Lazy lets Dial succeed if no sidecar answers yet. The first call that finds a
	// sidecar connects.
	Lazy bool
	// NearCache configures a cache in this process. Default: none.
	NearCache NearCache
	// NoSharedMemory makes all reads go over the socket. Default: hot values are read from
	// memory that the sidecar shares, where it offers that.
	NoSharedMemory bool
}

// check refuses settings that contradict each other, and negative ones.
func (cfg Config) check() error {
	if cfg.Token != "" && cfg.TokenFile != "" {
		return fmt.Errorf("%w: Token and TokenFile are given: leave out one of them", cachesidecar.ErrBadRequest)
	}
	for name, n := range map[string]int64{
		"Conns": int64(cfg.Conns), "MaxCalls": int64(cfg.MaxCalls), "MaxLoads": int64(cfg.MaxLoads),
		"DialTimeout": int64(cfg.DialTimeout), "RequestTimeout": int64(cfg.RequestTimeout),
		"LoadTimeout": int64(cfg.LoadTimeout), "WaitTimeout": int64(cfg.WaitTimeout),
	} {
		if n < 0 {
			return fmt.Errorf("%w: Config.%s is negative (%d): give more, or zero for the default",
				cachesidecar.ErrBadRequest, name, n)
		}
	}
	return nil
}

func (cfg Config) withDefaults() Config {
	cfg.Conns = cmp.Or(cfg.Conns, 1)
	cfg.DialTimeout = cmp.Or(cfg.DialTimeout, 250*time.Millisecond)
	cfg.RequestTimeout = cmp.Or(cfg.RequestTimeout, time.Second)
	cfg.LoadTimeout = cmp.Or(cfg.LoadTimeout, 30*time.Second)
	cfg.WaitTimeout = cmp.Or(cfg.WaitTimeout, 10*time.Second)
	cfg.MaxCalls = cmp.Or(cfg.MaxCalls, 1024)
	cfg.MaxLoads = cmp.Or(cfg.MaxLoads, 4096)
	cfg.Namespace = cmp.Or(cfg.Namespace, "default")
	return cfg
}

// ReadToken returns the token in a file, as for Config.TokenFile. If file is "", it
// returns "". Its errors are ErrUnauthorized and say what to do about the file.
func ReadToken(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	b, err := settings.ReadSecret(file, wire.MaxNameLen+2)
	token := strings.TrimRight(string(b), "\r\n")
	switch {
	case err != nil:
		return "", fmt.Errorf("%w: token file %s: %w", cachesidecar.ErrUnauthorized, file, err)
	case token == "":
		return "", fmt.Errorf("%w: token file %s is empty: write the token into it", cachesidecar.ErrUnauthorized, file)
	}
	return token, nil
}

// NearCache configures a cache inside this process, in front of the sidecar's. The zero
// value means no near cache.
type NearCache struct {
	// Bytes bounds the memory of the values, in bytes, with overhead; the cache needs 2.3
	// MiB beside it. Zero means no near cache; else at least 1 MiB. Values above 64 KiB,
	// or above a hundredth of Bytes, are not kept.
	Bytes int64
	// Bound is how much further a read from the near cache may lag than a read through
	// the sidecar. In total a read lags by at most the sidecar's smallest max_staleness
	// plus Bound. Default 1 s; at least 100 ms, at most a minute.
	Bound time.Duration
}

// Limits of NearCache's fields.
const (
	minNearBytes = 1 << 20
	maxNearValue = 64 << 10
	minNearBound = 100 * time.Millisecond
	maxNearBound = time.Minute
)
