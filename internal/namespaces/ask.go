package namespaces

import (
	"context"
	"errors"
	"fmt"

	"github.com/cachesidecar/cachesidecar/loader"
)

// probes are keys for a question to an origin that has no Check. The first one that the
// namespace lets pass is asked for.
var probes = []string{"cachesidecar-check", "check", "a", "A", "0", "1", "00000000-0000-0000-0000-000000000000"}

// Ask asks the server once. The server's answer that it has no such key is a success. The
// limits of the namespace do not count.
func (o *Origin) Ask(ctx context.Context) error {
	if o.Check != nil {
		return o.Check(ctx)
	}
	key := probes[0]
	for _, k := range probes {
		if o.Keys.Check([]byte(k)) == nil {
			key = k
			break
		}
	}
	_, err := o.source.Load(ctx, []byte(key))
	switch {
	case err == nil, errors.Is(err, loader.ErrAbsent), errors.Is(err, loader.ErrBadKey),
		errors.Is(err, loader.ErrTooLarge):
		return nil
	case errors.Is(err, loader.ErrPermanent):
		return fmt.Errorf("%w (it was asked for the key %q)", err, key)
	}
	return err
}
