package memcached

import (
	"cmp"
	"math"

	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// write answers the commands that change one key.
func (t *handler) write(conn *server.Conn, cmd *command) {
	switch cmd.verb {
	case verbDelete:
		t.beginRequest(wire.OpDelete, cmd.key)
	case verbMetaDelete:
		t.metaDelete(cmd)
	case verbIncr, verbMetaArithmetic:
		t.incr(cmd)
	case verbTouch:
		t.touch(cmd)
	default:
		t.set(cmd)
	}
	t.run(conn)
}

// set makes the request of a command that brings a value.
func (t *handler) set(cmd *command) {
	ttl, over := ttlOf(cmd.exptime, t.Now.Wall)
	if over && !cmd.mode.IsConcat() {
		t.expired(cmd)
		return
	}
	q := t.beginRequest(wire.OpSet, cmd.key)
	q.Value, q.Flags, q.Mode = cmd.value, cmd.flags, cmd.mode
	if !cmd.mode.IsConcat() {
		q.TTLMS = ttl
	}
	if cmd.mode != wire.ModeAdd {
		q.Compare = cmd.cas
	}
	if cmd.mode == wire.ModeCAS {
		q.Options = wire.StaleOK // a stale value is there, as far as memcached's clients are concerned
	}
}

// expired makes the request of a value that is over before it is stored: what is there goes,
// if the condition of the write is met.
func (t *handler) expired(cmd *command) {
	cmd.expired = true
	if cmd.mode == wire.ModeAdd {
		lookAt(t.beginRequest(wire.OpGet, cmd.key))
		return
	}
	q := t.remove(cmd.key)
	if cmd.mode == wire.ModeCAS {
		q.Compare = cmp.Or(cmd.cas, noVersion)
	}
}

// remove begins the request that ends a value whose time is over, or that a client has failed
// to replace. Only the cache forgets the value: no client has asked to delete it at the origin.
func (t *handler) remove(key []byte) *wire.Request {
	q := t.beginRequest(wire.OpDelete, key)
	q.Options = wire.CacheOnly
	return q
}

// noVersion is a version that no value has. A deletion compares with it in the place of 0, with
// which it would compare nothing.
const noVersion = math.MaxUint64

func (t *handler) metaDelete(cmd *command) {
	q := t.beginRequest(wire.OpDelete, cmd.key)
	if cmd.hasCAS {
		q.Compare = cmp.Or(cmd.cas, noVersion)
	}
	if !cmd.invalidate {
		return
	}
	q.Options = wire.Soft
	if !cmd.setsTTL {
		return
	}
	switch ms, over := ttlOf(cmd.exptime, t.Now.Wall); {
	case over:
		q.Options = wire.CacheOnly
	default:
		q.StaleMS = uint32(min(ms, wire.MaxTimeout))
	}
}

func (t *handler) incr(cmd *command) {
	q := t.beginRequest(wire.OpIncr, cmd.key)
	q.Options = wire.Unsigned
	if cmd.down {
		q.Options |= wire.Down
	}
	q.Delta, q.Compare = int64(cmd.delta), cmd.cas
	if cmd.vivify {
		q.Create, q.Initial = true, int64(cmd.initial)
		q.TTLMS = t.ttl(cmd.vivifyTime)
	}
	if cmd.setsTTL {
		q.Options |= wire.Retouch
		q.TTLMS = t.ttl(cmd.exptime) // if it is over, nothing is removed: the value may be no number
	}
}

// touch makes the request of touch. A time that is over ends the value.
func (t *handler) touch(cmd *command) {
	ms, over := ttlOf(cmd.exptime, t.Now.Wall)
	if over {
		t.remove(cmd.key)
		return
	}
	t.beginRequest(wire.OpTouch, cmd.key).TTLMS = ms
}
