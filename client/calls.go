package client

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Item is the result of a Get. The caller owns Value.
type Item struct {
	Value   []byte
	Flags   uint32        // as set by the writer
	Version uint64        // for CompareAndSwap
	TTL     time.Duration // remaining; zero: no expiry
	Source  string        // near, l1, l2, peer, origin, or load (a GetOrLoad's function)
	Age     time.Duration // how far the value may lag behind the current one, at most
	Stale   bool          // only if GetOptions.StaleOK is set
}

// GetOptions configures a Get.
type GetOptions struct {
	Fresh   bool // ask the key's owner, read no copy
	NoLoad  bool // do not ask the origin
	StaleOK bool // accept a stale value if there is no current one
}

func (o GetOptions) bits() (b wire.Options) {
	if o.Fresh {
		b |= wire.Fresh
	}
	if o.NoLoad {
		b |= wire.NoLoad
	}
	if o.StaleOK {
		b |= wire.StaleOK
	}
	return b
}

// SetOptions configures a write. The zero value uses the namespace's TTL.
type SetOptions struct {
	TTL      time.Duration // at most 365 days, rounded up to milliseconds
	NoExpiry bool
	Flags    uint32 // the caller's own mark, returned by Get
	AckAll   bool   // return once no host can serve the old value any more
}

func (o SetOptions) bits() wire.Options {
	if o.AckAll {
		return wire.AckAll
	}
	return 0
}

func (o SetOptions) ttl() (int64, error) { return ttlMillis(o.TTL, o.NoExpiry) }

func ttlMillis(ttl time.Duration, none bool) (int64, error) {
	switch {
	case none:
		return 0, nil
	case ttl == 0:
		return wire.TTLDefault, nil
	case ttl < 0 || ttl > wire.MaxTTL*time.Millisecond:
		return 0, fmt.Errorf("%w: a TTL of %v: give 1ms to 8760h, or NoExpiry", ErrBadRequest, ttl)
	}
	return int64((ttl + time.Millisecond - 1) / time.Millisecond), nil
}

func first[T any](opts []T) (o T) {
	if len(opts) > 0 {
		o = opts[0]
	}
	return o
}

// Get returns a key's value. It returns ErrNotFound if the key has none.
func (c *Client) Get(ctx context.Context, key string, opts ...GetOptions) (Item, error) {
	o := first(opts)
	near := c.nearly()
	if near != nil && !o.Fresh && ctx.Err() == nil {
		if it, ok := near.get(c.space, key); ok {
			return it, nil
		}
	}
	sent, bits := near.ask(o)
	k := []byte(key)
	a, err := c.do(ctx, c.slotFor(k), &wire.Request{Op: wire.OpGet, Key: k, Options: bits})
	defer a.release()
	if err != nil {
		return Item{}, err
	}
	near.keep(c.space, key, sent, &a, &a.Reply)
	return item(&a.Reply), nil
}

func item(r *wire.Reply) Item {
	return Item{
		Value:   bytes.Clone(r.Value),
		Flags:   r.Flags,
		Version: r.Version,
		TTL:     time.Duration(r.TTLMS) * time.Millisecond,
		Source:  r.Source.String(),
		Age:     time.Duration(r.AgeMS) * time.Millisecond,
		Stale:   r.Status == wire.Stale,
	}
}

// GetMulti returns the values of the keys that have one. If it returns an error beside a
// result, it could not ask for some of the keys.
func (c *Client) GetMulti(ctx context.Context, keys []string, opts ...GetOptions) (map[string]Item, error) {
	found := make(map[string]Item, len(keys))
	if near, o := c.nearly(), first(opts); near != nil && !o.Fresh && ctx.Err() == nil {
		left := make([]string, 0, len(keys))
		for _, key := range keys {
			it, ok := near.get(c.space, key)
			if !ok {
				left = append(left, key)
				continue
			}
			found[key] = it
		}
		keys = left
	}
	for len(keys) > 0 {
		n := min(len(keys), wire.MaxKeys)
		answered, err := c.getSome(ctx, keys[:n], found, first(opts))
		if err != nil {
			return found, err
		}
		keys = keys[answered:]
	}
	return found, nil
}

// getSome asks for up to MaxKeys keys. It returns how many of them, counted from the
// first, were answered: the sidecar ends an answer early if it would become too long.
func (c *Client) getSome(ctx context.Context, keys []string, found map[string]Item, o GetOptions) (answered int, err error) {
	near := c.nearly()
	sent, bits := near.ask(o)
	q := &wire.Request{Op: wire.OpMGet, Keys: make([][]byte, len(keys)), Options: bits}
	for i, k := range keys {
		q.Keys[i] = []byte(k)
	}
	a, err := c.do(ctx, c.anySlot(), q)
	defer a.release()
	if err != nil {
		return 0, err
	}
	for i := range a.Items {
		switch r := &a.Items[i]; {
		case r.Status == wire.OK || r.Status == wire.Stale:
			found[keys[i]] = item(r)
			near.keep(c.space, keys[i], sent, &a, r)
		case r.Status == wire.Busy && i > 0:
			return i, nil // the caller asks again for the rest
		case r.Status != wire.Miss:
			return i, replyError(r)
		}
	}
	return len(keys), nil
}

// Set stores a value and returns its version.
func (c *Client) Set(ctx context.Context, key string, value []byte, opts ...SetOptions) (uint64, error) {
	return c.set(ctx, key, value, wire.ModeSet, 0, first(opts))
}

// Add stores a value if the key is absent, else it returns ErrExists.
func (c *Client) Add(ctx context.Context, key string, value []byte, opts ...SetOptions) (uint64, error) {
	return c.set(ctx, key, value, wire.ModeAdd, 0, first(opts))
}

// Replace stores a value if the key is present, else it returns ErrNotFound.
func (c *Client) Replace(ctx context.Context, key string, value []byte, opts ...SetOptions) (uint64, error) {
	return c.set(ctx, key, value, wire.ModeReplace, 0, first(opts))
}

// CompareAndSwap stores a value if the key's version is still the given one. Else it
// returns a *VersionError, which is ErrExists, or ErrNotFound.
func (c *Client) CompareAndSwap(ctx context.Context, key string, value []byte, version uint64, opts ...SetOptions) (uint64, error) {
	return c.set(ctx, key, value, wire.ModeCAS, version, first(opts))
}

func (c *Client) set(ctx context.Context, key string, value []byte, mode wire.Mode, compare uint64, o SetOptions) (uint64, error) {
	ttl, err := o.ttl()
	if err != nil {
		return 0, err
	}
	k := []byte(key)
	slot := c.slotFor(k)
	if err := slot.fits(value); err != nil {
		return 0, err
	}
	a, err := c.do(ctx, slot, &wire.Request{
		Op: wire.OpSet, Key: k, Value: value, TTLMS: ttl, Flags: o.Flags, Mode: mode, Compare: compare, Options: o.bits(),
	})
	defer a.release()
	c.wrote(key, a.Version, err)
	return a.Version, err
}

// Delete removes keys from the whole cluster. It returns how many of them had a value,
// and ErrNotFound if none had one.
func (c *Client) Delete(ctx context.Context, keys ...string) (int, error) {
	return c.DeleteWith(ctx, DeleteOptions{}, keys...)
}

// DeleteOptions configures a DeleteWith.
type DeleteOptions struct {
	AckAll bool // return once no host can serve the old values any more
	Soft   bool // keep the values for GetOptions.StaleOK, for the namespace's stale_limit
	// ReplicaLag is the length of the load barrier: values of the keys that are loaded
	// within it are not kept, since they may come from a replica that lags behind. At
	// most the namespace's replica_lag; zero: that replica_lag.
	ReplicaLag time.Duration
}

func (o DeleteOptions) lagMillis() (uint32, error) {
	if o.ReplicaLag < 0 {
		return 0, fmt.Errorf("%w: a replica lag of %v: give 1ms or more, or 0 for the namespace's", ErrBadRequest, o.ReplicaLag)
	}
	return uint32((min(o.ReplicaLag, wire.MaxTimeout*time.Millisecond) + time.Millisecond - 1) / time.Millisecond), nil
}

// DeleteWith is Delete with options.
func (c *Client) DeleteWith(ctx context.Context, o DeleteOptions, keys ...string) (int, error) {
	hold, err := o.lagMillis()
	if err != nil {
		return 0, err
	}
	had := 0
	var bits wire.Options
	if o.AckAll {
		bits |= wire.AckAll
	}
	if o.Soft {
		bits |= wire.Soft
	}
	for len(keys) > 0 {
		n := min(len(keys), wire.MaxKeys)
		q := &wire.Request{Op: wire.OpDelete, Keys: make([][]byte, n), Options: bits, ReplicaLagMS: hold}
		for i, k := range keys[:n] {
			q.Keys[i] = []byte(k)
		}
		s := c.anySlot()
		if n == 1 {
			s = c.slotFor(q.Keys[0])
		}
		a, err := c.do(ctx, s, q)
		for _, k := range keys[:n] {
			if err != nil {
				c.wrote(k, 0, err)
			}
		}
		for i := range a.Items {
			r := &a.Items[i]
			c.deleted(keys[i], r)
			switch {
			case r.Status == wire.OK:
				had++
			case r.Status != wire.Miss && err == nil:
				err = replyError(r)
			}
		}
		a.release()
		if err != nil {
			return had, err
		}
		keys = keys[n:]
	}
	if had == 0 {
		return 0, ErrNotFound
	}
	return had, nil
}

// deleted records the result of a key's deletion in the near cache. A deletion that found
// no value counts as a change too: the owner may have lost a value that is still kept
// here.
func (c *Client) deleted(key string, r *wire.Reply) {
	err := replyError(r)
	if r.Status == wire.Miss {
		err = nil
	}
	c.wrote(key, r.Version, err)
}

// Touch gives a key a new TTL: the one in the options, else the namespace's.
func (c *Client) Touch(ctx context.Context, key string, opts ...SetOptions) error {
	o := first(opts)
	ttl, err := o.ttl()
	if err != nil {
		return err
	}
	k := []byte(key)
	a, err := c.do(ctx, c.slotFor(k), &wire.Request{Op: wire.OpTouch, Key: k, TTLMS: ttl, Options: o.bits()})
	c.wrote(key, a.Event, err)
	a.release()
	return err
}

// Incr adds delta to a decimal number and returns the sum. It returns ErrNotFound if the
// key has no value.
func (c *Client) Incr(ctx context.Context, key string, delta int64, opts ...SetOptions) (int64, error) {
	return c.incr(ctx, key, &wire.Request{Delta: delta}, first(opts))
}

// IncrFrom is Incr, but sets an absent key to initial.
func (c *Client) IncrFrom(ctx context.Context, key string, delta, initial int64, opts ...SetOptions) (int64, error) {
	return c.incr(ctx, key, &wire.Request{Delta: delta, Create: true, Initial: initial}, first(opts))
}

func (c *Client) incr(ctx context.Context, key string, q *wire.Request, o SetOptions) (int64, error) {
	ttl, err := o.ttl()
	if err != nil {
		return 0, err
	}
	q.Op, q.Key, q.TTLMS, q.Options = wire.OpIncr, []byte(key), ttl, o.bits()
	a, err := c.do(ctx, c.slotFor(q.Key), q)
	c.wrote(key, a.Version, err)
	a.release()
	return a.Number, err
}

// Ping asks the sidecar for an empty answer.
func (c *Client) Ping(ctx context.Context) error {
	a, err := c.do(ctx, c.anySlot(), &wire.Request{Op: wire.OpPing})
	a.release()
	return err
}

// FlushOptions configures a Flush. The zero value empties the client's namespace on this
// host.
type FlushOptions struct {
	All     bool // every namespace
	Cluster bool // on every host
}

// Flush empties one namespace, or all namespaces.
func (c *Client) Flush(ctx context.Context, o FlushOptions) error {
	var bits wire.Options
	if o.All {
		bits |= wire.All
	}
	if o.Cluster {
		bits |= wire.Cluster
	}
	a, err := c.do(ctx, c.anySlot(), &wire.Request{Op: wire.OpFlush, Options: bits})
	a.release()
	if c.near != nil {
		c.near.drop()
	}
	return err
}

// These are the results of Stats, ClusterStats, Members, Ring and Verify.
type (
	Stats        = cachesidecar.Stats
	ClusterStats = cachesidecar.ClusterStats
	Member       = cachesidecar.Member
	Place        = cachesidecar.Place
	LeaseStats   = cachesidecar.LeaseStats
	Verified     = cachesidecar.Verified
)

// Stats returns the sidecar's statistics.
func (c *Client) Stats(ctx context.Context) (Stats, error) {
	return body[Stats](ctx, c, &wire.Request{Op: wire.OpStats})
}

// ClusterStats returns the statistics of every host, and the names of the hosts that sent
// none.
func (c *Client) ClusterStats(ctx context.Context) (ClusterStats, error) {
	return body[ClusterStats](ctx, c, &wire.Request{Op: wire.OpStats, Options: wire.Cluster})
}

// Members returns the hosts of the cluster, as this host sees them.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	return body[[]Member](ctx, c, &wire.Request{Op: wire.OpMembers})
}

// Forget removes a dead host from the list of members, on all hosts. It returns
// ErrNotFound if no host knows the name. It does not remove a live host: stop that host
// first.
func (c *Client) Forget(ctx context.Context, node string) error {
	a, err := c.do(ctx, c.anySlot(), &wire.Request{Op: wire.OpForget, Key: []byte(node)})
	a.release()
	return err
}

// Ring returns which host owns a key.
func (c *Client) Ring(ctx context.Context, key string) (Place, error) {
	return body[Place](ctx, c, &wire.Request{Op: wire.OpRing, Key: []byte(key)})
}

// Verify makes the sidecar check for the given duration, at most 10 minutes, that no host
// reads a value that it must not read. The context's deadline, or the client's timeout,
// must leave a few seconds more.
func (c *Client) Verify(ctx context.Context, duration time.Duration) (Verified, error) {
	return body[Verified](ctx, c, &wire.Request{Op: wire.OpVerify, WaitMS: uint32(duration.Milliseconds())})
}

func body[T any](ctx context.Context, c *Client, q *wire.Request) (v T, err error) {
	a, err := c.do(ctx, c.anySlot(), q)
	defer a.release()
	if err == nil {
		if err = wire.UnmarshalBody(a.Body, &v); err != nil {
			err = fmt.Errorf("%w: the sidecar's answer: %w", ErrInternal, err)
		}
	}
	return v, err
}
