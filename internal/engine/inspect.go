package engine

import (
	"cmp"
	"context"
	"encoding/binary"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/inspect"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// Admin answers requests of operators: about hosts (hosts.go), about what this one stores and does, and VERIFY,
// DRAIN and RELOAD.
type Admin struct {
	*deps
	hot       *inspect.Sketch
	loads     *inspect.SlowList
	answer    func(context.Context, *wire.Request) (wire.Reply, error) // Engine.Answer
	verifying atomic.Bool
	Requests  inspect.SlowList // of apps, over the socket
	Listing   chan struct{}    // has a place for the one request that lists keys
}

// Hot answers HOT. may reports whether the caller may know a namespace's keys.
func (h *Admin) Hot(q *wire.Request, may func(namespace string) bool) wire.Reply {
	top := h.hot.Top(int(q.Limit), h.Clock.Read().Boot, seen(q, may))
	a := wire.Hot{WindowMS: uint64(top.Window.Milliseconds()), Reads: top.Reads, Keys: []wire.HotKey{}}
	for _, k := range top.Keys {
		a.Keys = append(a.Keys, wire.HotKey{
			Namespace: k.Namespace, Key: k.Key, Reads: k.Reads,
			Share: float64(k.Reads) / float64(cmp.Or(top.Reads, 1)),
		})
	}
	return wire.BodyReply(a)
}

// seen returns which namespaces an answer tells of: that of the request, or with All those
// that may accepts.
func seen(q *wire.Request, may func(string) bool) func(string) bool {
	if q.Has(wire.All) {
		return may
	}
	return func(namespace string) bool { return namespace == string(q.Namespace) }
}

// Slow answers SLOW. may is as for Hot.
func (h *Admin) Slow(q *wire.Request, may func(namespace string) bool) wire.Reply {
	now, see := h.Clock.Read().Boot, seen(q, may)
	calls := func(l *inspect.SlowList) []wire.SlowCall {
		list := []wire.SlowCall{}
		for _, c := range l.Slowest(int(q.Limit), now, see) {
			w := wire.SlowCall{
				BeganMS: uint64(c.Began), TookUS: uint64(c.Took.Microseconds()), Op: c.Op, Namespace: c.Namespace,
				Key: c.Key, Hash: uint64(c.Hash), Keys: uint64(c.Keys), Result: c.Result, Parts: []wire.SlowPart{},
			}
			for _, p := range c.Parts {
				part := wire.SlowPart{What: p.What, Node: p.Node, TookUS: uint64(p.Took.Microseconds())}
				w.Parts = append(w.Parts, part)
			}
			list = append(list, w)
		}
		return list
	}
	return wire.BodyReply(wire.Slow{
		ThresholdMS: uint64(inspect.SlowThreshold.Milliseconds()), WindowMS: uint64(inspect.SlowAge.Milliseconds()),
		Requests: calls(&h.Requests), Loads: calls(h.loads),
	})
}

// Bounds of one KEYS, beside its limit. The next request goes on where it has ended.
const (
	listTime   = 5 * time.Millisecond
	listLooked = 1 << 15 // entries
)

// Keys answers KEYS: the entries of this host's own share, page by page. One request at a
// time does so, and takes the lock of one shard at a time, for one index page.
func (h *Admin) Keys(q *wire.Request, deadline time.Duration) wire.Reply {
	at, err := h.position(q.Token)
	if err != nil {
		return wire.ErrorReply(err)
	}
	wait := time.NewTimer(deadline - h.Clock.Read().Boot)
	defer wait.Stop()
	select {
	case h.Listing <- struct{}{}:
		defer func() { <-h.Listing }()
	case <-wait.C:
		return failed(wire.Busy, "other requests list keys: try again")
	}
	now := h.Clock.Read()
	h.Node.CheckPause(now.Boot)
	page := wire.KeysPage{Keys: []wire.KeyInfo{}}
	pins := namespaces.Pins{Table: h.Namespaces}
	defer pins.Release()
	ns := pins.Read(q.Namespace)
	if ns == nil {
		return wire.BodyReply(page) // a name without a slot has no entries
	}
	w := segment.Wanted{
		Namespace: ns.ID, Prefix: q.Key, Now: now.Boot,
		Partition: func(p uint16) bool { return h.Node.OwnershipEpoch(p) != 0 },
	}
	var list []segment.Listed
	more := true
	for looked, n := 0, 0; more && len(list) < int(q.Limit) && looked < listLooked &&
		h.Clock.Read().Boot-now.Boot < listTime; looked += n {
		list, at, n, more = h.Store.List(at, &w, int(q.Limit)-len(list), list)
	}
	for _, l := range list {
		page.Keys = append(page.Keys, wire.KeyInfo{
			Key: l.Key, Size: uint64(l.Size), Memory: uint64(l.Memory), TTLMS: uint64(l.Deadline.TTLms(now.Boot)),
			Version: uint64(l.Version),
		})
	}
	if more {
		page.Cursor = appendCursor(nil, at, h.Node.Self().Epoch)
	}
	return wire.BodyReply(page)
}

// position returns where a KEYS begins.
func (h *Admin) position(cursor []byte) (segment.Position, *wire.Error) {
	p, bad := parseCursor(cursor, h.Node.Self().Epoch)
	if bad == nil && !h.Store.Valid(p) {
		bad = wire.Errorf(wire.BadRequest,
			"the cursor %x names no place here: give the cursor of the answer before as it is", cursor)
	}
	return p, bad
}

// cursorSize is the length of a cursor of KEYS: a position, and the epoch of the process
// whose store has it.
//
//	epoch 8 B │ shard 2 B │ root 2 B │ rest 8 B, big-endian
const cursorSize = 20

func appendCursor(b []byte, p segment.Position, e kv.Epoch) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(e))
	b = binary.BigEndian.AppendUint16(b, p.Shard)
	b = binary.BigEndian.AppendUint16(b, p.Root)
	return binary.BigEndian.AppendUint64(b, p.Rest)
}

// parseCursor reads a cursor of the process with the given epoch. nil is the beginning. It
// does not know whether the store has the position.
func parseCursor(cursor []byte, e kv.Epoch) (p segment.Position, bad *wire.Error) {
	switch {
	case cursor == nil:
		return p, nil
	case len(cursor) != cursorSize:
		return p, wire.Errorf(wire.BadRequest,
			"a cursor of %d bytes: give the cursor of the answer before, or none for the first page", len(cursor))
	case kv.Epoch(binary.BigEndian.Uint64(cursor)) != e:
		return p, wire.Errorf(wire.BadRequest,
			"the cursor is of another host, or of this one before its restart: begin again without a cursor")
	}
	return segment.Position{
		Shard: binary.BigEndian.Uint16(cursor[8:]), Root: binary.BigEndian.Uint16(cursor[10:]),
		Rest: binary.BigEndian.Uint64(cursor[12:]),
	}, nil
}

// reload answers RELOAD.
func (h *Admin) reload(ctx context.Context) wire.Reply {
	if h.Config.Program.Reload == nil {
		return failed(wire.BadRequest, "the program that this sidecar is embedded in "+
			"has no configuration that could be read again: reload it by the program's own means")
	}
	changes, err := h.Config.Program.Reload(ctx)
	if err != nil {
		return failed(wire.BadRequest, "%v", err)
	}
	return wire.BodyReply(changes)
}
