package session

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Session serves one connection. All of it belongs to the connection's reader.
type Session struct {
	d         *Doors
	Core      *engine.Engine
	from      kv.Process    // another sidecar; zero: an app
	about     []any         // the peer, for the log
	By        access.Caller // the app at the other end
	told      bool          // a refusal has been logged
	brief     bool          // it asks for the shared memory: the app may end before it has it
	passed    *passed       // the latest descriptor of the shared memory; nil: none
	hello     bool
	Namespace []byte // the connection's default namespace
	now       kv.Moment
	batches   uint32
	Names     namespaces.Pins // for one batch
	tally     tally
	// slow answers what cannot be answered in place.
	slow    func(ctx context.Context, q *wire.Request, b *namespaces.Pins, deadline time.Duration) wire.Reply
	order   order
	tokens  tokens
	queued  queued
	text    *text         // of a connection that speaks memcached's protocol; else nil
	member  *quota.Member // of the host's shares; nil: this process itself
	process string        // at the other end

	ctx, reading context.Context // of requests that wait; reading also ends with the connection; nil before the first

	watching atomic.Int64 // WATCHes of this connection that wait
	leasing  atomic.Int64 // LEASEs of this connection that wait
	*work                 // nil between batches
}

// work is the memory that a session needs while it serves a batch; an idle one has none.
type work struct {
	req    *wire.Request // the present request
	reply  wire.Reply
	reqs   [server.MaxServe]wire.Request
	errs   [server.MaxServe]*wire.Error
	hashes [server.MaxServe]kv.Hash
	own    []kv.Hash // see keys
	sum    uint64    // of Store.Warm and Changes.Warm
}

var works = sync.Pool{New: func() any { return new(work) }}

// log writes a line that names the peer.
func (c *Session) log(level slog.Level, msg string, args ...any) {
	log := c.Core.Config.Log
	if log.Enabled(context.Background(), level) {
		log.With(c.about...).Log(context.Background(), level, msg, args...)
	}
}

func (c *Session) nameOf(q *wire.Request) []byte {
	if q.Namespace == nil {
		return c.Namespace
	}
	return q.Namespace
}

// count counts the outcome of a request. A request of another sidecar is counted there,
// where the app has asked, and here only as served.
func (c *Session) count(q *wire.Request, r *wire.Reply) {
	if c.from.Node == "" {
		c.Core.Count(q, r)
	} else {
		c.Core.Counts.Served.Add(int64(namespaces.KeysIn(q)))
	}
}

// keys returns the hashes of the keys of c.req. They are valid until the next call.
func (c *Session) keys() []kv.Hash {
	q := c.req
	c.own = c.own[:0]
	if q.Key != nil {
		c.own = append(c.own, c.Core.Names.Hash(q.Namespace, q.Key))
	}
	for _, k := range q.Keys {
		c.own = append(c.own, c.Core.Names.Hash(q.Namespace, k))
	}
	return c.own
}

func (c *Session) answerError(conn *server.Conn, err *wire.Error) {
	c.reply = wire.ErrorReply(err)
	c.tally.add(c.Core.Names.None, c.req.Op, namespaces.Failed)
	c.answer(conn)
}

func (c *Session) answer(conn *server.Conn) {
	c.reply.ID = c.req.ID
	if t := c.text; t != nil {
		conn.Out = appendReply(conn.Out, &t.form, &t.n, c.req, &c.reply)
		return
	}
	conn.Out = wire.AppendReply(conn.Out, c.req.Op, &c.reply)
}

// noRoom returns the error of a request for which there is no memory.
func noRoom(err error) *wire.Error {
	if err == nil {
		return nil
	}
	return wire.Errorf(wire.Busy, "%v", err)
}
