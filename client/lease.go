package client

import (
	"bytes"
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/calls"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Lease is the right and the duty to load one missing key. Other callers wait until Fill
// or Abandon was called, or until the lease's time is over.
type Lease struct {
	// TTL is the time in which to call Fill. After it the sidecar gives a lease to
	// another caller.
	TTL time.Duration

	client *Client
	key    string
	token  []byte
}

// FillOptions configures a Fill. The zero value uses the namespace's TTL.
type FillOptions struct {
	TTL      time.Duration // at most 365 days, rounded up to milliseconds
	NoExpiry bool
	Flags    uint32 // the caller's own mark, returned by Get
}

// Lease is Get, except for a miss. On a miss one caller in the whole cluster gets a
// lease; the others wait for the value, or get ErrTimeout. With GetOptions.StaleOK a
// caller gets a stale value, if there is one, and does not wait.
//
// Lease returns ErrNotFound if the namespace's origin has no such key, or if the key's
// owner cannot be reached. In the second case a loaded value cannot be kept. GetOrLoad
// does all of this.
func (c *Client) Lease(
	ctx context.Context, key string, o cachesidecar.GetOptions,
) (cachesidecar.Item, *Lease, error) {
	if err := ctx.Err(); err != nil {
		return cachesidecar.Item{}, nil, callError(err)
	}
	if it, ok := c.near.get(ctx, key, o); ok {
		return it, nil, nil
	}
	type leased struct {
		it  cachesidecar.Item
		l   *Lease
		err error
	}
	to := make(chan leased) // no buffer: a lease is either handed over or given back
	timeout := c.timeout(ctx)
	// The goroutine ends with the call, or with the client.
	err := c.beginTask(ctx, func(detached context.Context) {
		var r leased
		r.it, r.l, _, r.err = c.lease(detached, key, o, timeout)
		select {
		case to <- r:
		case <-ctx.Done():
			if r.l != nil {
				_ = r.l.Abandon(detached)
			}
		}
	})
	if err != nil {
		return cachesidecar.Item{}, nil, err
	}
	select {
	case r := <-to:
		return r.it, r.l, r.err
	case <-ctx.Done():
		return cachesidecar.Item{}, nil, callError(ctx.Err())
	}
}

// lease makes one call. Its result loading is true if another caller still loads the key.
func (c *Client) lease(
	ctx context.Context, key string, o cachesidecar.GetOptions, timeout time.Duration,
) (it cachesidecar.Item, l *Lease, loading bool, err error) {
	k := []byte(key)
	q := wire.Request{Op: wire.OpLease, Key: k, Options: calls.ReadOptions(o)}
	sent := c.near.noteSent(&q)
	a, err := call(ctx, c, c.slotFor(k), &q, timeout)
	defer a.release()
	switch {
	case err != nil:
		return cachesidecar.Item{}, nil, a.Status == wire.Timeout, err
	case a.Status == wire.Lease:
		ttl := time.Duration(a.TTLMS) * time.Millisecond
		return cachesidecar.Item{}, &Lease{TTL: ttl, client: c, key: key, token: bytes.Clone(a.Token)}, false, nil
	}
	c.near.keep(key, sent, &a, &a.Reply)
	return item(&a.Reply), nil, false, nil
}

// Fill stores a loaded value, gives it to the callers that wait, and returns its version.
// ErrNotStored means that the key has changed since the lease began, or that the lease's
// time was over. Then the value is in no cache; use it only for requests that came before
// that.
func (lease *Lease) Fill(ctx context.Context, value []byte, o FillOptions) (uint64, error) {
	ttl, err := calls.TTL(o.TTL, o.NoExpiry)
	q := wire.Request{Op: wire.OpFill, Key: []byte(lease.key), Token: lease.token, Value: value, TTLMS: ttl}
	q.Flags = o.Flags
	r, err := write(ctx, lease.client, q, err)
	return r.Version, err
}

// Abandon gives the lease back without a value. ErrNotStored means that the lease was
// over already.
func (lease *Lease) Abandon(ctx context.Context) error {
	k := []byte(lease.key)
	q := wire.Request{Op: wire.OpFill, Key: k, Token: lease.token, TTLMS: wire.TTLDefault, Options: wire.Abandon}
	a, err := lease.client.do(ctx, lease.client.slotFor(k), &q)
	a.release()
	return err
}
