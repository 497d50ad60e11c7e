package session

import (
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// get answers GET and LEASE in place: the store appends the value behind the answer's
// head.
func (c *Handler) get(conn *server.Conn) {
	limit := SmallValue
	for {
		at := len(conn.Out)
		conn.Out = wire.OpenValue(conn.Out, c.Req.ID, false, c.Req.Has(wire.Attest))
		value := len(conn.Out)
		out, size, ns := c.Core.Local.Value(conn.Out, &c.Names, c.Req, c.Req.Key, limit, c.Moment(conn), 0, &c.Reply)
		if c.Reply.Status != wire.OK {
			if conn.Out = conn.Out[:at]; c.Reply.Status == wire.Moved {
				if c.Req.Op != wire.OpLease || !c.grant(conn) {
					c.later(conn)
				}
				return
			}
			if n := len(c.Reply.Value); n > SmallValue { // a stale value
				if err := c.room(conn, n); err != nil {
					c.answerError(conn, err)
					return
				}
			}
			c.Tally.Add(ns, c.Req.Op, namespaces.OutcomeOf(&c.Reply))
			c.appendReply(conn)
			return
		}
		if size <= limit {
			conn.Out = wire.EndFrame(wire.CloseValue(out, value, &c.Reply), at)
			c.Tally.Add(ns, c.Req.Op, namespaces.HitOf(c.Reply.Source))
			return
		}
		conn.Out = conn.Out[:at]
		if c.from.Node != "" {
			c.long(conn, size)
			return
		}
		c.Names.Release() // Grow may wait
		if err := Busy(conn.Grow(size+AnswerSlack, true)); err != nil {
			c.answerError(conn, err)
			return
		}
		limit = size // the value may be another one by now, and longer
	}
}

// mget answers MGET in place, key by key.
func (c *Handler) mget(conn *server.Conn) {
	const item = true
	q := c.Req
	if c.Names.Release(); len(conn.Out) > 0 && !conn.Flush() { // it may wait
		return
	}
	at := len(conn.Out)
	c.Tally.Flush() // what comes back below is of this request alone
	counted := c.Tally
	attest := q.Has(wire.Attest)
	conn.Out = wire.OpenItems(conn.Out, q.ID, len(q.Keys))
	for _, key := range q.Keys {
		if err := c.itemRoom(conn, at); err != nil {
			c.item(conn, c.Core.Namespaces.None, wire.ErrorReply(err))
			continue
		}
		head := len(conn.Out)
		conn.Out = wire.OpenValue(conn.Out, 0, item, attest)
		value := len(conn.Out)
		out, size, ns := c.Core.Local.Value(conn.Out, &c.Names, q, key, SmallValue, c.Moment(conn), 0, &c.Reply)
		if c.Reply.Status == wire.OK && size > SmallValue {
			conn.Out = conn.Out[:head]
			if err := c.room(conn, size); err != nil {
				c.item(conn, ns, wire.ErrorReply(err))
				continue
			}
			limit := size
			conn.Out = wire.OpenValue(conn.Out, 0, item, attest)
			out, size, ns = c.Core.Local.Value(conn.Out, &c.Names, q, key, limit, c.Moment(conn), 0, &c.Reply)
			if c.Reply.Status == wire.OK && size > limit {
				c.Reply = wire.ErrorReply(grown)
			}
		}
		switch c.Reply.Status {
		case wire.OK:
			conn.Out = wire.CloseValue(out, value, &c.Reply)
			c.Tally.Add(ns, wire.OpMGet, namespaces.HitOf(c.Reply.Source))
		case wire.Moved: // the whole request goes the slow way
			conn.Out, c.Tally = conn.Out[:at], counted
			c.later(conn)
			return
		default:
			conn.Out = conn.Out[:head]
			if err := c.room(conn, len(c.Reply.Value)); err != nil { // a stale value
				c.Reply = wire.ErrorReply(err)
			}
			c.item(conn, ns, c.Reply)
		}
	}
	conn.Out = wire.EndFrame(conn.Out, at)
}

var grown = wire.Errorf(wire.Busy, "the value grew while it was read: ask again for this key")

// itemRoom makes room for an item with a short value.
func (c *Handler) itemRoom(conn *server.Conn, at int) *wire.Error {
	if len(conn.Out)-at > wire.MaxMGetAnswer {
		return wire.Errorf(wire.Busy, "the answer has become too long: ask again for this key")
	}
	return c.room(conn, SmallValue)
}

func (c *Handler) item(conn *server.Conn, ns *namespaces.Namespace, r wire.Reply) {
	conn.Out = wire.AppendItem(conn.Out, wire.OpMGet, &r)
	c.Tally.Add(ns, wire.OpMGet, namespaces.OutcomeOf(&r))
}
