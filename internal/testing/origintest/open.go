package origintest

import (
	"cmp"
	"io"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Open opens an origin with write-through until the end of the test. Unless options say otherwise, nothing it does
// has a limit of time.
func Open[C any, S io.Closer](
	t testing.TB, open func(C, loader.OriginOptions) (S, error), cfg C, options ...loader.OriginOptions,
) S {
	t.Helper()
	var o loader.OriginOptions
	for _, o = range options {
	}
	o.WriteThrough, o.Timeout = true, cmp.Or(o.Timeout, Never)
	s, err := open(cfg, o)
	testenv.Must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}
