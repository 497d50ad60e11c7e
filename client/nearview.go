package client

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/calls"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// on reports whether values are kept.
func (v nearView) on() bool { return v.space != nil }

// get returns a key's value if the options and the cache allow it.
func (v nearView) get(ctx context.Context, key string, o cachesidecar.GetOptions) (it cachesidecar.Item, ok bool) {
	n, in := v.cache, v.space
	if in == nil || o.Fresh || key == "" || ctx.Err() != nil {
		return it, false
	}
	s := n.stream.Load()
	if s == nil {
		return it, false
	}
	k := in.key(key)
	got := n.values.get(k)
	if got == nil {
		n.misses.Add(1)
		return it, false
	}
	lease := time.Duration(s.lease.Load()) // read before the checks of what it covers
	now := n.clock.Read().Boot
	if got.stream != s || lease == 0 || now-lease >= n.cfg.Bound ||
		int64(got.requestedAt) <= n.floors[k.Hash.Partition()].Load() ||
		got.facts.Deadline.Passed(now) || !n.ledger.Admit(k.Namespace, k.Hash, got.facts.Version, got.asOf) {
		n.refused.Add(1)
		return it, false
	}
	in.tally.add(inNear, key)
	value := make([]byte, len(got.value))
	copy(value, got.value)
	it = calls.ItemOf(value, got.facts)
	it.TTL, it.Source, it.Age = got.facts.Deadline.Remaining(now), "near", now-lease+time.Duration(s.behind.Load())
	return it, true
}

// asked records when a read was sent, and which stream was followed then.
type asked struct {
	at     time.Duration
	stream *stream // nil: the answer is not kept
}

// noteSent records that a read is about to be sent, and asks for an attested answer.
func (v nearView) noteSent(q *wire.Request) (a asked) {
	if v.space == nil {
		return a
	}
	if a.stream = v.cache.stream.Load(); a.stream != nil {
		a.at = v.cache.clock.Read().Boot
		q.Options |= wire.Attest
	}
	return a
}

// keep keeps the answer to a read if this client will learn when its value is outdated:
// the answer came from the followed process, and an owner attested its value.
func (v nearView) keep(key string, a asked, from *answer, r *wire.Reply) {
	n, in := v.cache, v.space
	if a.stream == nil || a.stream != n.stream.Load() || r.Status != wire.OK || !r.Attested {
		return
	}
	if w := from.from.welcomeOf(from.conn); w == nil || kv.Epoch(w.Epoch) != a.stream.through.Epoch {
		return
	}
	n.hlc.Observe(kv.Version(r.AsOf))
	h := in.key(key).Hash
	if int64(len(r.Value)) <= min(maxNearValue, n.cfg.Bytes/100) &&
		n.ledger.Admit(in.id, h, kv.Version(r.Version), kv.Version(r.AsOf)) {
		n.values.put(&kept{
			hash: h, namespace: in.id, key: strings.Clone(key),
			value: bytes.Clone(r.Value), facts: r.Facts(deadlineOf(a.at, r.TTLMS)),
			asOf: kv.Version(r.AsOf), requestedAt: a.at, stream: a.stream,
		})
	}
}

// deadlineOf returns the deadline of a value that was requested at asked, on the boot
// clock, and had ttlMS milliseconds left then. It rounds down; ttlMS 0 means no expiry.
func deadlineOf(asked time.Duration, ttlMS int64) kv.Deadline {
	if ttlMS == 0 {
		return 0
	}
	return kv.After(asked, time.Duration(ttlMS)*time.Millisecond) - 1
}

// wrote records the result of a write, before the caller gets it: the key has changed at a version; zero
// means that the version is not known.
func (v nearView) wrote(key []byte, version uint64, err error) {
	n, in := v.cache, v.space
	if in == nil || n.stream.Load() == nil {
		return // nothing is kept, and values requested from now on are newer
	}
	switch {
	// After ErrExists, version is that of the present value.
	case err == nil, errors.Is(err, cachesidecar.ErrExists):
	case changes(err):
		version = 0
	default:
		return
	}
	if version == 0 {
		version = uint64(n.hlc.Next(n.clock.Read().Wall))
	}
	n.hlc.Observe(kv.Version(version))
	h := kv.HashKey(in.seed.Load(), key)
	n.ledger.Note(h, kv.Version(version))
	n.values.outdate(h, kv.Version(version))
}

// flushed outdates all values.
func (v nearView) flushed() {
	if v.cache != nil {
		v.cache.drop()
	}
}

// NearStats is the statistics of a near cache.
type NearStats struct {
	Following      bool // whether the sidecar is followed; if not, nothing is served
	Hits, Misses   int64
	Refused        int64 // values found that are outdated, or no longer surely current
	Entries, Bytes int64
	Limit          int64 // in bytes
	Events, Resets int64 // in the sidecar's stream
}

// NearStats returns the near cache's statistics; zeros without a near cache.
func (c *Client) NearStats() NearStats {
	n := c.near.cache
	if n == nil {
		return NearStats{}
	}
	entries, bytes := n.values.size()
	return NearStats{
		Following: n.stream.Load() != nil,
		Hits:      n.hits.sum(inNear), Misses: n.misses.Load(), Refused: n.refused.Load(),
		Entries: entries, Bytes: bytes, Limit: n.cfg.Bytes, Events: n.events.Load(), Resets: n.resets.Load(),
	}
}
