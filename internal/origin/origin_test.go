package origin

import (
	"context"
	"log/slog"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// readOnly is an origin of a program's own kind, which takes no writes and has nothing to
// close.
type readOnly struct{}

func (readOnly) Kind() string     { return "own" }
func (readOnly) Descriptors() int { return 0 }
func (readOnly) Open(loader.OriginOptions) (*loader.Origin, error) {
	load := func(context.Context, []byte) (loader.Value, error) { return loader.Value{}, loader.ErrAbsent }
	return &loader.Origin{Source: loader.SourceFunc(load)}, nil
}

// TestOwnKindOfOrigin checks that write-through is refused, and not left out, if the
// origin takes no writes, and that an origin needs no Close.
func TestOwnKindOfOrigin(t *testing.T) {
	o, err := Open("n", Settings{Origin: readOnly{}}, nil, Host{Log: slog.Default()})
	testenv.Must(t, err)
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	if o, err := Open("n", Settings{Origin: readOnly{}, WriteThrough: true}, nil, Host{Log: slog.Default()}); err == nil {
		t.Errorf("write-through to an origin that takes no writes: %v", o)
	}
}
