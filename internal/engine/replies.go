package engine

import (
	"fmt"
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/segment"
	"github.com/cachesidecar/cachesidecar/loader"
)

// uncached answers with a value that must not be kept.
func uncached(v loader.Value, version kv.Version) wire.Reply {
	return wire.Reply{
		Value: v.Bytes, Attributes: flight.AttributesOf(&v), Version: uint64(version), Source: wire.SourceOrigin,
		TTLMS: 1,
	}
}

// oldReply answers with a stale value.
func oldReply(value []byte, old *segment.Stale, now kv.Moment) wire.Reply {
	r := wire.Reply{Value: value, Source: wire.SourceL2, AgeMS: uint64(max(0, old.Ended) / time.Millisecond)}
	r.SetFacts(old.Facts, now)
	return r
}

// CheckKey returns an error if a key is empty or too long.
func CheckKey(key []byte) *wire.Error {
	if !kv.ValidKey(key) {
		return wire.Errorf(wire.BadRequest, "the key has %d bytes: a key has 1 to %d", len(key), kv.MaxKeyLen)
	}
	return nil
}

// checkAllowed returns an error if apps may neither write nor load a key of a namespace: a feed of changes
// would not know it.
func checkAllowed(ns *namespaces.Namespace, key []byte) *wire.Error {
	if err := ns.Keys.Check(key); err != nil {
		return wire.Errorf(wire.BadRequest, "namespace %s, key %.64q: %v", ns.Name, key, err)
	}
	return nil
}

// ownershipEnded answers a write during which the ownership has ended.
func ownershipEnded() wire.Reply {
	return failed(wire.Timeout, "the key's partition went to another host in this moment; the outcome is unknown")
}

// failed returns the reply of a request that ends with an error.
func failed(status wire.Status, format string, args ...any) wire.Reply {
	return wire.ErrorReply(wire.Errorf(status, format, args...))
}

// notStored returns the reply of a write that was refused.
func notStored(why string, args ...any) wire.Reply {
	return wire.Reply{Status: wire.NotStored, Message: fmt.Appendf(nil, why, args...)}
}

// tooLarge returns the error of a value that is longer than max_value.
func tooLarge(size, most int) *wire.Error {
	return wire.Errorf(wire.TooLarge, "the value has %d bytes, max_value is %d: split it, or raise max_value",
		size, most)
}

// Moved returns the reply that this host does not answer for a key now.
func Moved() wire.Reply { return wire.Reply{Status: wire.Moved, Message: movedMessage} }

var movedMessage = []byte("this host does not own the key's partition")

func unreached(owner *cluster.Host) *wire.Error {
	return wire.Errorf(wire.Unavailable,
		"neither %s, which owns the key, nor a majority of the voters answers: try again", owner.Node)
}

// owned copies a reply out of its frame, without its attestation.
func owned(r *wire.Reply) wire.Reply {
	n := *r
	n.Value, n.Message = slices.Clone(r.Value), slices.Clone(r.Message)
	n.Token, n.Body = slices.Clone(r.Token), slices.Clone(r.Body)
	n.Attested, n.Owner, n.Items = false, nil, nil
	return n
}

func unanswered(q *wire.Request, owner *cluster.Host) wire.Reply {
	return degraded(q, "%s, which owns the key, did not answer in time", owner.Node)
}

// degraded answers a read that no owner of its key has answered. The reason of a miss is for loadUnsaid.
func degraded(q *wire.Request, why string, args ...any) wire.Reply {
	r := failed(wire.Unavailable, why, args...)
	if !q.Has(wire.Fresh) {
		r.Status, r.Why = wire.Miss, wire.Degraded
	}
	return r
}

// deleted reports whether a deletion has been executed.
func deleted(r *wire.Reply) bool { return r.Status == wire.OK || r.Status == wire.Miss }
