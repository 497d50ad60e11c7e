package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// LoadOptions of a GetOrLoad. The zero value takes the namespace's TTL.
type LoadOptions struct {
	TTL      time.Duration // of what is loaded: at most 365 days, rounded up to milliseconds
	NoExpiry bool
	Flags    uint32 // of what is loaded
	StaleOK  bool   // a stale value, marked so, is better than to wait for another's load
	Fresh    bool   // answered by the host that owns the key, from no copy
}

// GetOrLoad returns a key's value. Where it has none, one caller in the whole
// cluster calls load, and what that returns is kept and given to all. It is not
// kept where the key has changed since, nor where the sidecar or the key's owner
// cannot be asked: load is then called all the same, unless Config.FailClosed,
// for one caller of this process at a time, and those who come meanwhile share
// the next one.
//
// An error of load is returned as it is, to those of this process who share it;
// others load for themselves. ErrNotFound is none but that: that there is nothing
// is not kept. load does not end with the context of the call that began it, but
// with Config.LoadTimeout and with Close; its context has that call's values.
//
// In a namespace with an origin the sidecars load, and load is called only where
// they cannot be asked.
func (c *Client) GetOrLoad(ctx context.Context, key string, load func(ctx context.Context, key string) ([]byte, error), opts ...LoadOptions) (Item, error) {
	o := first(opts)
	if _, err := ttlMillis(o.TTL, o.NoExpiry); err != nil {
		return Item{}, err
	}
	it, err := c.Get(ctx, key, GetOptions{Fresh: o.Fresh})
	if err == nil || ctx.Err() != nil || !c.loadsAfter(err) {
		return it, err
	}
	f, err := c.join(ctx, flight{
		key: key, load: load, options: o, done: make(chan struct{}),
		alone: !errors.Is(err, ErrNotFound) || errors.Is(err, errDegraded), // the sidecar need not be asked again
	})
	if err != nil {
		return Item{}, err
	}
	select {
	case <-ctx.Done():
		return Item{}, callError(ctx.Err())
	case <-f.done:
	}
	if it = f.item; f.callers > 1 { // each gets bytes of its own
		it.Value = bytes.Clone(it.Value)
	}
	return it, f.err
}

// loadsAfter says whether a key that could not be had for a reason is loaded
// here.
func (c *Client) loadsAfter(err error) bool {
	if errors.Is(err, ErrNotFound) {
		return !errors.Is(err, ErrAbsent)
	}
	for _, e := range []error{ErrUnavailable, ErrBusy, ErrTimeout, ErrUnsupported} {
		if errors.Is(err, e) {
			return !c.cfg.FailClosed
		}
	}
	return false
}

// loads keeps this process from asking for a key, or loading it, more than once
// at a time.
//
// A caller may share what was not yet asked for when it came, and nothing else:
// an answer under way may be from before a write that the caller knows of, also
// by another process. So there is one flight of a key under way, and those who
// come meanwhile gather for the next one. A flight that has a lease is under way
// no longer: from then on the sidecar lets others wait for its fill, or, if the
// key changes, begin anew.
type loads struct {
	mu     sync.Mutex
	closed bool
	n      int // flights, those that gather included
	keys   map[loadKey]*queue
}

type loadKey struct {
	namespace, key string
	bits           wire.Options // who takes stale values may share with nobody else
}

// queue is of a key with a flight under way.
type queue struct{ next *flight } // that gathers; nil while nobody has come

// flight is a question to the sidecar, and a load if need be, for all who came
// before it began.
type flight struct {
	key     string
	load    func(context.Context, string) ([]byte, error)
	options LoadOptions
	alone   bool // the sidecar is not asked
	ctx     context.Context
	callers int // under loads.mu until it begins

	done chan struct{}
	item Item
	err  error
}

func (l *loads) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
}

// begin runs f on a goroutine of the client's, with the values of ctx, until
// Close at most.
func (c *Client) begin(ctx context.Context, f func(context.Context)) error {
	c.loads.mu.Lock()
	defer c.loads.mu.Unlock()
	if c.loads.closed { // nobody may begin while Close waits
		return ErrClosed
	}
	c.beginLocked(ctx, f)
	return nil
}

func (c *Client) beginLocked(ctx context.Context, f func(context.Context)) {
	c.tasks.Go(func() { // Close waits for it
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		defer context.AfterFunc(c.closed, cancel)()
		f(ctx)
	})
}

// join takes a place in the key's next flight, which begins at once if none is
// under way.
func (c *Client) join(ctx context.Context, n flight) (*flight, error) {
	k := loadKey{string(c.namespace), n.key, n.options.get().bits()}
	l := &c.loads
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	q := l.keys[k]
	if q != nil && q.next != nil {
		q.next.callers++
		q.next.alone = q.next.alone && n.alone
		return q.next, nil
	}
	if l.n >= c.cfg.MaxLoads {
		return nil, fmt.Errorf("%w: %d keys are being loaded: try again, or raise Config.MaxLoads", ErrBusy, l.n)
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
	c.beginLocked(f.ctx, func(ctx context.Context) { c.fly(ctx, k, f) })
}

// pass lets the key's next flight begin.
func (c *Client) pass(k loadKey) {
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

// fly does what the callers of a flight have come for.
func (c *Client) fly(ctx context.Context, k loadKey, f *flight) {
	defer func() {
		c.loads.mu.Lock()
		c.loads.n--
		c.loads.mu.Unlock()
		close(f.done)
	}()
	pass := sync.OnceFunc(func() { c.pass(k) })
	defer pass()
	var lease *Lease
	if !f.alone {
		f.item, lease, f.err = c.await(ctx, f.key, f.options.get())
		if lease == nil && (f.err == nil || !c.loadsAfter(f.err)) {
			return
		}
	}
	if ctx.Err() != nil {
		f.err = ErrClosed
		return
	}
	if lease != nil {
		pass()
	}
	c.loadInto(ctx, f, lease)
}

// await asks until there is an answer other than that somebody still loads: the
// sidecar that says so is alive.
func (c *Client) await(ctx context.Context, key string, o GetOptions) (it Item, l *Lease, err error) {
	for range max(1, c.cfg.WaitTimeout/c.cfg.RequestTimeout) {
		var loading bool
		if it, l, loading, err = c.lease(ctx, key, o, c.cfg.RequestTimeout); !loading {
			break
		}
	}
	return it, l, err
}

// loadInto calls the flight's function, and fills or abandons the lease, if
// there is one: also where the function ends its goroutine.
func (c *Client) loadInto(ctx context.Context, f *flight, lease *Lease) {
	filled := lease == nil
	defer func() {
		if !filled {
			_ = lease.Abandon(ctx)
		}
	}()
	f.err = fmt.Errorf("load of %q ended its goroutine", f.key)
	var value []byte
	if value, f.err = c.call(ctx, f); f.err != nil {
		return
	}
	o := f.options
	f.item = Item{Value: value, Flags: o.Flags, TTL: o.TTL, Source: "load"}
	if lease == nil {
		return
	}
	var err error
	f.item.Version, err = lease.Fill(ctx, value, FillOptions{TTL: o.TTL, NoExpiry: o.NoExpiry, Flags: o.Flags})
	filled = err == nil || changes(err)
}

// call calls the flight's function. A panic is its error: it must not end the
// process from a goroutine of ours.
func (c *Client) call(ctx context.Context, f *flight) (value []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.LoadTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			value, err = nil, fmt.Errorf("load of %q panicked: %v\n%s", f.key, p, debug.Stack())
		}
	}()
	return f.load(ctx, f.key)
}

func (o LoadOptions) get() GetOptions { return GetOptions{Fresh: o.Fresh, StaleOK: o.StaleOK} }
