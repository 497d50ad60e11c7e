package session

import (
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// WarmFrom is the least number of requests in a batch for which looking ahead pays.
const WarmFrom = 4

// LookAhead touches what the store has of the first keys of Hashes, if this host owns them,
// and what their writes will need.
func (c *Session) LookAhead(keys, writes int) {
	owned := c.Hashes[:0]
	for _, h := range c.Hashes[:keys] {
		if c.Core.Node.OwnershipEpoch(h.Partition()) != 0 {
			owned = append(owned, h)
		}
	}
	if len(owned) < WarmFrom {
		return
	}
	c.sum += c.Core.Store.Warm(owned)
	if writes >= WarmFrom {
		c.sum += c.Core.Changes.Warm(owned)
	}
}

// Execute executes c.Req with what this host has, and says whether it could: the reply is c.Reply.
func (c *Session) Execute(conn *server.Conn) bool {
	if q := c.Req; q.Op == wire.OpFill || q.Op == wire.OpSet && q.Mode != wire.ModeSet {
		switch n := c.Core.Copied(q, &c.Names); {
		case n <= SmallValue:
		case n >= quota.LongCopy && c.from.Node != "":
			return false // it must not delay the requests of other apps of that host
		default:
			if err := NoRoom(server.Turn(conn, n)); err != nil {
				c.Refuse(err)
				return true
			}
			defer server.EndTurn(conn, n)
			c.Limit(conn)
		}
	}
	if c.Core.ExecuteTo(c.Req, &c.Names, c.Moment(conn), 0, &c.Reply); c.Reply.Status == wire.Moved {
		return false
	}
	c.Count(c.Req, &c.Reply)
	return true
}

// AnswerSlack is the room that an answer takes beside its value, in bytes; in memcached's
// protocol it may repeat a key.
const AnswerSlack = 512

// SmallValue is the longest value, in bytes, that is appended without asking for room.
const SmallValue = 31 << 10

// Moment returns when a read happens: with its batch, unless the reader has had to wait since, for
// a client that is slow or for room. A value may have ended meanwhile, and so may a lease.
func (c *Session) Moment(conn *server.Conn) kv.Moment {
	if !server.Waited(conn) {
		return c.Now
	}
	now := c.Core.Clock.Read()
	c.Core.Node.CheckPause(now.Boot)
	return now
}

// MetaGet executes the METAGET c.Req with what this host has, and says whether it could: the reply is
// c.Reply, for which there is room. An answer to another sidecar must not delay others: a long value
// goes the slow way.
func (c *Session) MetaGet(conn *server.Conn) bool {
	q := c.Req
	if n := c.Core.Copied(q, &c.Names); n > SmallValue {
		if c.from.Node != "" {
			return false
		}
		c.Names.Release()
		if err := NoRoom(conn.Grow(n+AnswerSlack, true)); err != nil { // it may wait: nothing is copied yet
			c.Refuse(err)
			return true
		}
	}
	if c.Core.ExecuteTo(q, &c.Names, c.Moment(conn), 0, &c.Reply); c.Reply.Status == wire.Moved {
		return false
	}
	if n := len(c.Reply.Value); n > SmallValue { // mostly there is room: the value may have grown just now
		if err := c.room(conn, n); err != nil {
			if !OnlyReads(q) { // it was done, and BUSY says that it was not
				conn.Kill()
			}
			c.Refuse(err)
			return true
		}
	}
	c.Count(q, &c.Reply)
	return true
}

// room makes room behind Out for n bytes of an answer that has begun. It may wait for a turn to copy
// many bytes, and holds no namespace meanwhile.
func (c *Session) room(conn *server.Conn, n int) *wire.Error {
	if n += AnswerSlack; len(conn.Out)+n >= quota.LongCopy {
		c.Names.Release()
	}
	return NoRoom(conn.Grow(n, false))
}

// Limit gives the present request its end, if it is a write.
func (c *Session) Limit(conn *server.Conn) {
	q := c.Req
	c.Core.Deadlines.Limit(q, c.Now.Boot+c.Core.Deadlines.Timeout(q))
	if server.Waited(conn) && !c.Quiet {
		q.Conn = server.EndOf(conn)
	}
}
