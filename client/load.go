package client

import (
	"context"
	"errors"
	"fmt"
)

// GetOrLoad returns a key's value; where it has none it calls load, stores what
// that returns with the options, and returns it. Calls of one process for one
// key at one time share one load, which does not end with the context of the
// call that began it, but with Config.LoadTimeout.
//
// What cannot be stored is returned all the same. With Config.FailOpen a
// sidecar that cannot be reached does not keep load from being called.
func (c *Client) GetOrLoad(ctx context.Context, key string, load func(context.Context) ([]byte, error), opts ...SetOptions) ([]byte, error) {
	it, err := c.Get(ctx, key)
	switch {
	case err == nil:
		return it.Value, nil
	case errors.Is(err, ErrNotFound):
	case c.cfg.FailOpen && ctx.Err() == nil && (errors.Is(err, ErrUnavailable) || errors.Is(err, ErrTimeout) || errors.Is(err, ErrBusy)):
	default:
		return nil, err
	}
	o := first(opts)
	done := c.loads.DoChan(string(c.namespace)+"\x00"+key, func() (v any, err error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.LoadTimeout)
		defer cancel()
		defer func() {
			if p := recover(); p != nil { // of load: it must not end the process from a goroutine of ours
				err = fmt.Errorf("load of %q panicked: %v", key, p)
			}
		}()
		// Another load may have ended since the caller looked.
		if it, err := c.Get(ctx, key); err == nil {
			return it.Value, nil
		}
		value, err := load(ctx)
		if err != nil {
			return nil, err
		}
		_, _ = c.Set(ctx, key, value, o)
		return value, nil
	})
	select {
	case <-ctx.Done():
		return nil, callError(ctx.Err())
	case r := <-done:
		if r.Err != nil {
			return nil, r.Err
		}
		value := r.Val.([]byte)
		if r.Shared { // each caller gets bytes of its own
			value = append([]byte(nil), value...)
		}
		return value, nil
	}
}
