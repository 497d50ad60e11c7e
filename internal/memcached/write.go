package memcached

import (
	"cmp"
	"math"

	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// write answers the commands that change one key.
func (t *handler) write(conn *server.Conn, cmd *Command) {
	switch cmd.verb {
	case Delete:
		t.begin(wire.OpDelete, cmd.Key)
	case MetaDelete:
		t.metaDelete(cmd)
	case Incr, MetaArithmetic:
		t.incr(cmd)
	case Touch:
		t.touch(cmd)
	default:
		t.set(cmd)
	}
	t.run(conn)
}

// set makes the request of a command that brings a value.
func (t *handler) set(cmd *Command) {
	ttl, over := ttlOf(cmd.Exptime, t.Now.Wall)
	if over && !cmd.mode.IsConcat() {
		t.expired(cmd)
		return
	}
	q := t.begin(wire.OpSet, cmd.Key)
	q.Value, q.Flags, q.Mode = cmd.Value, cmd.Flags, cmd.mode
	if !cmd.mode.IsConcat() {
		q.TTLMS = ttl
	}
	if cmd.mode != wire.ModeAdd {
		q.Compare = cmd.CAS
	}
	if cmd.mode == wire.ModeCAS {
		q.Options = wire.StaleOK // a stale value is there, as far as memcached's clients are concerned
	}
}

// expired makes the request of a value that is over before it is stored: what is there goes,
// if the condition of the write is met.
func (t *handler) expired(cmd *Command) {
	cmd.expired = true
	if cmd.mode == wire.ModeAdd {
		t.begin(wire.OpMetaGet, cmd.Key).Options = wire.NoValue | wire.Unread | wire.NoLoad
		return
	}
	q := t.remove(cmd.Key)
	if cmd.mode == wire.ModeCAS {
		q.Compare = cmp.Or(cmd.CAS, noVersion)
	}
}

// remove begins the request that ends a value whose time is over, or that a client has failed
// to replace. Only the cache forgets the value: no client has asked to delete it at the origin.
func (t *handler) remove(key []byte) *wire.Request {
	q := t.begin(wire.OpDelete, key)
	q.Options = wire.CacheOnly
	return q
}

// noVersion is a version that no value has. A deletion compares with it in the place of 0, with
// which it would compare nothing.
const noVersion = math.MaxUint64

func (t *handler) metaDelete(cmd *Command) {
	q := t.begin(wire.OpDelete, cmd.Key)
	if cmd.HasCAS {
		q.Compare = cmp.Or(cmd.CAS, noVersion)
	}
	if !cmd.invalidate {
		return
	}
	q.Options = wire.Soft
	if !cmd.Touch {
		return
	}
	switch ms, over := ttlOf(cmd.Exptime, t.Now.Wall); {
	case over:
		q.Options = wire.CacheOnly
	default:
		q.StaleMS = uint32(min(ms, wire.MaxTimeout))
	}
}

func (t *handler) incr(cmd *Command) {
	q := t.begin(wire.OpIncr, cmd.Key)
	q.Options = wire.Unsigned
	if cmd.Down {
		q.Options |= wire.Down
	}
	q.Delta, q.Compare = int64(cmd.Delta), cmd.CAS
	if cmd.vivify {
		q.Create, q.Initial = true, int64(cmd.Initial)
		q.TTLMS = t.ttl(cmd.VivifyTime)
	}
	if cmd.Touch {
		q.Options |= wire.Retouch
		q.TTLMS = t.ttl(cmd.Exptime) // if it is over, nothing is removed: the value may be no number
	}
}

// touch makes the request of touch. A time that is over ends the value.
func (t *handler) touch(cmd *Command) {
	ms, over := ttlOf(cmd.Exptime, t.Now.Wall)
	if over {
		t.remove(cmd.Key)
		return
	}
	t.begin(wire.OpTouch, cmd.Key).TTLMS = ms
}
