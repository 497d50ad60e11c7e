package sidecar

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/verify"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Errors of the embedding API, to be tested with errors.Is.
var (
	ErrNotFound  = errors.New("not found")
	ErrExists    = errors.New("the condition is not met")
	ErrNotStored = errors.New("not stored")
)

// Value is the result of a Get.
type Value struct {
	Data    []byte // belongs to the caller
	Flags   uint32
	Version uint64
	TTL     time.Duration // time left; zero: no expiry
}

// SetOptions are the options of Set. The zero value stores unconditionally, with the
// namespace's TTL.
type SetOptions struct {
	TTL       time.Duration // zero: the namespace's default
	NoExpiry  bool
	Flags     uint32
	Condition Condition
	Version   uint64 // for IfVersion
	AckAll    bool   // return only when no host can serve the old value any more
}

func (o SetOptions) bits() wire.Options {
	if o.AckAll {
		return wire.AckAll
	}
	return 0
}

// Condition is the condition on which Set stores.
type Condition uint8

const (
	Always    Condition = iota
	IfAbsent            // else ErrExists
	IfPresent           // else ErrNotFound
	IfVersion           // version is SetOptions.Version; else ErrExists or ErrNotFound
)

// Get returns the value of a key, or ErrNotFound.
func (s *Sidecar) Get(ctx context.Context, namespace string, key []byte) (Value, error) {
	var v Value
	r, err := s.call(ctx, &wire.Request{Op: wire.OpGet, Namespace: []byte(namespace), Key: key, TTLMS: wire.TTLDefault})
	if err == nil {
		v = Value{Data: r.Value, Flags: r.Flags, Version: r.Version, TTL: time.Duration(r.TTLMS) * time.Millisecond}
	}
	return v, err
}

// Set stores a value and returns its version. The caller may reuse both slices after Set
// has returned.
func (s *Sidecar) Set(ctx context.Context, namespace string, key, value []byte, o SetOptions) (version uint64, err error) {
	r, err := s.call(ctx, &wire.Request{
		Op: wire.OpSet, Namespace: []byte(namespace), Key: key, Value: value, TTLMS: ttlMillis(o.TTL, o.NoExpiry),
		Flags: o.Flags, Mode: wire.Mode(o.Condition), Compare: o.Version, Options: o.bits(),
	})
	return r.Version, err
}

// Delete removes keys and returns how many of them had a value.
func (s *Sidecar) Delete(ctx context.Context, namespace string, keys ...[]byte) (int, error) {
	return s.delete(ctx, namespace, 0, keys)
}

// DeleteEverywhere is Delete, but returns only when no host can serve the old values any
// more.
func (s *Sidecar) DeleteEverywhere(ctx context.Context, namespace string, keys ...[]byte) (int, error) {
	return s.delete(ctx, namespace, wire.AckAll, keys)
}

func (s *Sidecar) delete(ctx context.Context, namespace string, options wire.Options, keys [][]byte) (int, error) {
	r, err := s.call(ctx, &wire.Request{Op: wire.OpDelete, Namespace: []byte(namespace), Keys: keys, Options: options})
	had := 0
	for i := range r.Items {
		if r.Items[i].Status == wire.OK {
			had++
		}
		err = errors.Join(err, r.Items[i].Err())
	}
	return had, err
}

// Touch gives a key a new TTL; zero: the namespace's default. It returns ErrNotFound if
// the key is absent.
func (s *Sidecar) Touch(ctx context.Context, namespace string, key []byte, ttl time.Duration) error {
	_, err := s.call(ctx, &wire.Request{Op: wire.OpTouch, Namespace: []byte(namespace), Key: key, TTLMS: ttlMillis(ttl, false)})
	return err
}

// Incr adds delta to a decimal number and returns the sum. If the key is absent, it gets
// the value initial; with a nil initial, Incr returns ErrNotFound. ErrNotStored means
// that the value is no number, or that the sum does not fit into 64 bits.
func (s *Sidecar) Incr(ctx context.Context, namespace string, key []byte, delta int64, initial *int64) (int64, error) {
	q := &wire.Request{Op: wire.OpIncr, Namespace: []byte(namespace), Key: key, Delta: delta, TTLMS: wire.TTLDefault}
	if initial != nil {
		q.Create, q.Initial = true, *initial
	}
	r, err := s.call(ctx, q)
	return r.Number, err
}

// Flush empties a namespace on this host, or all namespaces if the name is empty. Entries
// that other hosts own stay.
func (s *Sidecar) Flush(ctx context.Context, namespace string) error {
	q := &wire.Request{Op: wire.OpFlush, Namespace: []byte(namespace)}
	if namespace == "" {
		q.Options = wire.All
	}
	_, err := s.call(ctx, q)
	return err
}

func ttlMillis(ttl time.Duration, none bool) int64 {
	switch {
	case none:
		return 0
	case ttl == 0:
		return wire.TTLDefault
	case ttl < 0:
		return wire.TTLDefault - 1 // call refuses it
	}
	return max(1, int64((ttl+time.Millisecond-1)/time.Millisecond))
}

// call executes a request of the embedding program. It refuses TTLs out of range and the
// namespaces that VERIFY reserves.
func (s *Sidecar) call(ctx context.Context, q *wire.Request) (r wire.Reply, err error) {
	if q.TTLMS > wire.MaxTTL || q.TTLMS < wire.TTLDefault {
		return r, wire.Errorf(wire.BadRequest, "the TTL is negative or above a year: give 1 ms to 365 days, or ask for no expiry")
	}
	if verify.Reserved(q.Namespace) {
		return r, verify.ErrReserved
	}
	return s.ask(ctx, q)
}

// ask is call without these checks.
func (s *Sidecar) ask(ctx context.Context, q *wire.Request) (r wire.Reply, err error) {
	err = s.embedded(ctx, func(b *namespaces.Pins, now kv.Moment) error {
		s.engine.Node.CheckPause(now.Boot)
		deadline, until := s.engine.DeadlineOf(q, now), now.Boot+s.engine.Timeout(q)
		if d, ok := ctx.Deadline(); ok {
			deadline = now.Boot + time.Until(d)
			until = deadline
		}
		s.engine.Limit(q, until)
		if (q.Op != wire.OpDelete || s.engine.Node.Alone()) && !s.engine.WantsAll(q) {
			r = s.engine.Execute(q, b, now, 0)
		} else {
			r = engine.Moved() // other hosts may own some of the keys
		}
		if r.Status == wire.Moved {
			r = s.serve(ctx, q, b, deadline)
		}
		s.engine.Count(q, &r)
		return embedError(&r)
	})
	return r, err
}

// embedded runs f while the store is open. After Run has returned, it returns ErrClosed.
func (s *Sidecar) embedded(ctx context.Context, f func(*namespaces.Pins, kv.Moment) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !s.enter() {
		return ErrClosed
	}
	defer s.inUse.Done()
	b := namespaces.Pins{Table: s.engine.Names}
	defer b.Release()
	return f(&b, s.engine.Clock.Read())
}

// enter reports whether the store is open, and keeps it open until inUse.Done.
func (s *Sidecar) enter() bool {
	s.use.RLock()
	defer s.use.RUnlock()
	if s.closed {
		return false
	}
	s.inUse.Add(1)
	return true
}

func embedError(r *wire.Reply) error {
	switch r.Status {
	case wire.OK:
		return nil
	case wire.Miss:
		return ErrNotFound
	case wire.Exists:
		return fmt.Errorf("%w: version %d is there", ErrExists, r.Version)
	case wire.NotStored:
		return fmt.Errorf("%w: %s", ErrNotStored, r.Message)
	}
	return &wire.Error{Status: r.Status, Message: string(bytes.Clone(r.Message))}
}
