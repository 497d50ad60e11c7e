package session

import (
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// answerSlack is the room that an answer takes beside its value, in bytes; in memcached's
// protocol it may repeat a key.
const answerSlack = 512

// smallValue is the longest value, in bytes, that is appended without asking for room.
const smallValue = 31 << 10

// moment returns when a read happens: with its batch, unless the reader has had to wait since, for
// a client that is slow or for room. A value may have ended meanwhile, and so may a lease.
func moment(c *Session, conn *server.Conn) kv.Moment {
	if !server.Waited(conn) {
		return c.now
	}
	now := c.Core.Clock.Read()
	c.Core.Node.CheckPause(now.Boot)
	return now
}

// get answers GET and LEASE in place: the store appends the value behind the answer's
// head.
func (c *Session) get(conn *server.Conn) {
	limit := smallValue
	for {
		at := len(conn.Out)
		conn.Out = wire.OpenValue(conn.Out, c.req.ID, false, c.req.Has(wire.Attest))
		value := len(conn.Out)
		out, size, ns := c.Core.Reads.Value(conn.Out, &c.Names, c.req, c.req.Key, limit, moment(c, conn), 0, &c.reply)
		if c.reply.Status != wire.OK {
			if conn.Out = conn.Out[:at]; c.reply.Status == wire.Moved {
				if c.req.Op != wire.OpLease || !c.grant(conn) {
					c.later(conn)
				}
				return
			}
			if n := len(c.reply.Value); n > smallValue { // a stale value
				if err := room(c, conn, n); err != nil {
					c.answerError(conn, err)
					return
				}
			}
			c.tally.add(ns, c.req.Op, namespaces.OutcomeOf(&c.reply))
			c.answer(conn)
			return
		}
		if size <= limit {
			conn.Out = wire.EndFrame(wire.CloseValue(out, value, &c.reply), at)
			c.tally.add(ns, c.req.Op, namespaces.HitOf(c.reply.Source))
			return
		}
		conn.Out = conn.Out[:at]
		if c.from.Node != "" {
			c.long(conn, size)
			return
		}
		c.Names.Release() // Grow may wait
		if err := noRoom(conn.Grow(size+answerSlack, true)); err != nil {
			c.answerError(conn, err)
			return
		}
		limit = size // the value may be another one by now, and longer
	}
}

// mget answers MGET in place, key by key.
func (c *Session) mget(conn *server.Conn) {
	const item = true
	q := c.req
	if len(conn.Out) > 0 && !conn.Flush() {
		return
	}
	at := len(conn.Out)
	counted := c.tally
	attest := q.Has(wire.Attest)
	conn.Out = wire.OpenItems(conn.Out, q.ID, len(q.Keys))
	for _, key := range q.Keys {
		if err := c.itemRoom(conn, at); err != nil {
			c.item(conn, c.Core.Names.None, wire.ErrorReply(err))
			continue
		}
		head := len(conn.Out)
		conn.Out = wire.OpenValue(conn.Out, 0, item, attest)
		value := len(conn.Out)
		out, size, ns := c.Core.Reads.Value(conn.Out, &c.Names, q, key, smallValue, moment(c, conn), 0, &c.reply)
		if c.reply.Status == wire.OK && size > smallValue {
			conn.Out = conn.Out[:head]
			if err := room(c, conn, size); err != nil {
				c.item(conn, ns, wire.ErrorReply(err))
				continue
			}
			limit := size
			conn.Out = wire.OpenValue(conn.Out, 0, item, attest)
			out, size, ns = c.Core.Reads.Value(conn.Out, &c.Names, q, key, limit, moment(c, conn), 0, &c.reply)
			if c.reply.Status == wire.OK && size > limit {
				c.reply = wire.ErrorReply(grown)
			}
		}
		switch c.reply.Status {
		case wire.OK:
			conn.Out = wire.CloseValue(out, value, &c.reply)
			c.tally.add(ns, wire.OpMGet, namespaces.HitOf(c.reply.Source))
		case wire.Moved: // the whole request goes the slow way
			conn.Out, c.tally = conn.Out[:at], counted
			c.later(conn)
			return
		default:
			conn.Out = conn.Out[:head]
			if err := room(c, conn, len(c.reply.Value)); err != nil { // a stale value
				c.reply = wire.ErrorReply(err)
			}
			c.item(conn, ns, c.reply)
		}
	}
	conn.Out = wire.EndFrame(conn.Out, at)
}

// metaGet answers METAGET in place, and says whether it could. An answer to another sidecar must
// not delay others: a long value goes the slow way.
func (c *Session) metaGet(conn *server.Conn) bool {
	q := c.req
	if n := c.Core.Copied(q, &c.Names); n > smallValue {
		if c.from.Node != "" {
			return false
		}
		c.Names.Release()
		if err := noRoom(conn.Grow(n+answerSlack, true)); err != nil { // it may wait: nothing is copied yet
			c.answerError(conn, err)
			return true
		}
	}
	if c.Core.ExecuteTo(q, &c.Names, moment(c, conn), 0, &c.reply); c.reply.Status == wire.Moved {
		return false
	}
	if n := len(c.reply.Value); n > smallValue { // mostly there is room: the value may have grown just now
		switch err := room(c, conn, n); {
		case err != nil && !onlyReads(q): // it was done, and BUSY says that it was not
			conn.Kill()
			return true
		case err != nil:
			c.answerError(conn, err)
			return true
		}
	}
	c.count(q, &c.reply)
	c.answer(conn)
	return true
}

var grown = wire.Errorf(wire.Busy, "the value grew while it was read: ask again for this key")

// itemRoom makes room for an item with a short value.
func (c *Session) itemRoom(conn *server.Conn, at int) *wire.Error {
	if len(conn.Out)-at > wire.MaxMGetAnswer {
		return wire.Errorf(wire.Busy, "the answer has become too long: ask again for this key")
	}
	return room(c, conn, smallValue)
}

// room makes room behind Out for n bytes of an answer that has begun. It may wait for a turn to copy
// many bytes, and holds no namespace meanwhile.
func room(c *Session, conn *server.Conn, n int) *wire.Error {
	if n += answerSlack; len(conn.Out)+n >= quota.LongCopy {
		c.Names.Release()
	}
	return noRoom(conn.Grow(n, false))
}

func (c *Session) item(conn *server.Conn, ns *namespaces.Namespace, r wire.Reply) {
	conn.Out = wire.AppendItem(conn.Out, wire.OpMGet, &r)
	c.tally.add(ns, wire.OpMGet, namespaces.OutcomeOf(&r))
}
