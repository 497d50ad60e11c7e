package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/calls"
)

// GetOrLoad returns a key's value. If the key has none, one caller in the whole cluster
// calls load; its value is kept, and all callers get it. The value is not kept if the key
// has changed since, or if the sidecar or the key's owner cannot be asked. If they cannot
// be asked, GetOrLoad calls load all the same, unless Config.FailClosed applies. It does
// so for one caller of this process at a time; callers that come meanwhile share the next
// call of load.
//
// GetOrLoad returns an error of load unchanged, to the callers of this process that share
// the load; other callers load for themselves. If load returns ErrNotFound, GetOrLoad
// returns it too. The absence is not cached. The context of load ends with
// Config.LoadTimeout and with Close, not with the context of the call that began the
// load; it has the values of that call's context.
//
// A load that asks GetOrLoad for its own key, with its context, gets ErrBadRequest: it would
// wait for itself.
//
// In a namespace with an origin the sidecars load. There GetOrLoad calls load only if the
// sidecars cannot be asked.
func (c *Client) GetOrLoad(
	ctx context.Context, key string, load func(ctx context.Context, key string) ([]byte, error), o LoadOptions,
) (cachesidecar.Item, error) {
	if _, err := calls.TTL(o.TTL, o.NoExpiry); err != nil {
		return cachesidecar.Item{}, err
	}
	it, err := c.Get(ctx, key, cachesidecar.GetOptions{Fresh: o.Fresh})
	if err == nil || ctx.Err() != nil || !loadsAfter(c, err) {
		return it, err
	}
	if err := c.loads.refuseOwn(ctx, string(c.namespace), key); err != nil {
		return cachesidecar.Item{}, err
	}
	f, err := c.join(ctx, flight{
		key: key, load: load, options: o, done: make(chan struct{}),
		// The sidecar need not be asked again.
		alone: !errors.Is(err, cachesidecar.ErrNotFound) || errors.Is(err, calls.ErrDegraded),
	})
	if err != nil {
		return cachesidecar.Item{}, err
	}
	select {
	case <-ctx.Done():
		return cachesidecar.Item{}, callError(ctx.Err())
	case <-f.done:
	}
	if it = f.item; f.callers > 1 { // each caller gets its own bytes
		it.Value = bytes.Clone(it.Value)
	}
	return it, f.err
}

// loadsAfter reports whether this process loads a key after a read has failed with err.
func loadsAfter(c *Client, err error) bool {
	if errors.Is(err, cachesidecar.ErrNotFound) {
		return !errors.Is(err, cachesidecar.ErrAbsent)
	}
	for _, e := range []error{
		cachesidecar.ErrUnavailable, cachesidecar.ErrBusy, cachesidecar.ErrTimeout, cachesidecar.ErrUnsupported,
	} {
		if errors.Is(err, e) {
			return !c.cfg.FailClosed
		}
	}
	return false
}

// join adds the caller to the key's next flight. The flight begins at once if none is
// under way.
func (c *Client) join(ctx context.Context, n flight) (*flight, error) {
	k := loadKey{string(c.namespace), n.key, calls.ReadOptions(n.options.get())}
	l := &c.loads
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, cachesidecar.ErrClosed
	}
	q := l.keys[k]
	if q != nil && q.next != nil {
		q.next.callers++
		q.next.alone = q.next.alone && n.alone
		return q.next, nil
	}
	if l.n >= c.cfg.MaxLoads {
		return nil, fmt.Errorf("%w: %d keys are being loaded: try again, or raise Config.MaxLoads",
			cachesidecar.ErrBusy, l.n)
	}
	l.n++
	n.ctx, n.callers = ctx, 1
	if q == nil {
		l.keys[k] = &queue{}
		c.flyLocked(k, &n)
	} else {
		q.next = &n
	}
	return &n, nil
}

func (c *Client) flyLocked(k loadKey, f *flight) {
	c.beginTaskLocked(f.ctx, func(ctx context.Context) { c.fly(ctx, k, f) })
}

// passOn lets the key's next flight begin.
func passOn(c *Client, k loadKey) {
	l := &c.loads
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.keys[k]
	if q.next == nil {
		delete(l.keys, k)
		return
	}
	c.flyLocked(k, q.next)
	q.next = nil
}

// fly carries out a flight: it asks the sidecar, and loads if needed.
func (c *Client) fly(ctx context.Context, k loadKey, f *flight) {
	defer func() {
		c.loads.mu.Lock()
		c.loads.n--
		c.loads.mu.Unlock()
		close(f.done)
	}()
	pass := sync.OnceFunc(func() { passOn(c, k) })
	defer pass()
	var lease *Lease
	if !f.alone {
		f.item, lease, f.err = await(ctx, c, f.key, f.options.get())
		if lease == nil && (f.err == nil || !loadsAfter(c, f.err)) {
			return
		}
	}
	if ctx.Err() != nil {
		f.err = cachesidecar.ErrClosed
		return
	}
	if lease != nil {
		pass()
	}
	loadInto(ctx, c, f, lease)
}

// await asks the sidecar until its answer is other than "another caller still loads". A
// sidecar that gives that answer is alive.
func await(
	ctx context.Context, c *Client, key string, o cachesidecar.GetOptions,
) (it cachesidecar.Item, l *Lease, err error) {
	for range max(1, c.cfg.WaitTimeout/c.cfg.RequestTimeout) {
		var loading bool
		if it, l, loading, err = c.lease(ctx, key, o, c.cfg.RequestTimeout); !loading {
			break
		}
	}
	return it, l, err
}

// loadInto calls the flight's function, and fills or abandons the lease, if there is one.
// It abandons the lease also if the function ends its goroutine.
func loadInto(ctx context.Context, c *Client, f *flight, lease *Lease) {
	filled := lease == nil
	defer func() {
		if !filled {
			_ = lease.Abandon(ctx)
		}
	}()
	f.err = fmt.Errorf("load of %q ended its goroutine", f.key)
	var value []byte
	if value, f.err = callLoad(ctx, c, f); f.err != nil {
		return
	}
	o := f.options
	f.item = cachesidecar.Item{Value: value, Flags: o.Flags, TTL: o.TTL, Source: "load"}
	if lease == nil {
		return
	}
	var err error
	f.item.Version, err = lease.Fill(ctx, value, FillOptions{TTL: o.TTL, NoExpiry: o.NoExpiry, Flags: o.Flags})
	filled = err == nil || changes(err)
}

// callLoad calls the flight's function. It turns a panic into an error, since a panic on a
// goroutine of this package would end the process.
func callLoad(ctx context.Context, c *Client, f *flight) (value []byte, err error) {
	ctx, ended := c.loads.context(ctx, string(c.namespace), f.key)
	defer ended()
	ctx, cancel := context.WithTimeout(ctx, c.cfg.LoadTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			value, err = nil, fmt.Errorf("load of %q panicked: %v\n%s", f.key, p, debug.Stack())
		}
	}()
	return f.load(ctx, f.key)
}
