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

// Session serves one connection. All of it belongs to the connection's reader. A protocol of its own
// (package endpoint) has its requests executed by a Session, and writes the answers itself.
type Session struct {
	Doors *Doors
	Core  *engine.Engine
	By    access.Caller   // the app at the other end
	Names namespaces.Pins // for one batch
	Now   kv.Moment       // of the batch
	Tally Tally
	Quiet bool // the client wants no answer to the present request

	from      kv.Process // another sidecar; zero: an app
	about     []any      // the peer, for the log
	told      bool       // a refusal has been logged
	brief     bool       // it asks for the shared memory: the app may end before it has it
	passed    *passed    // the latest descriptor of the shared memory; nil: none
	hello     bool
	Namespace []byte // the connection's default namespace
	batches   uint32
	// slow answers what cannot be answered in place.
	slow    func(ctx context.Context, q *wire.Request, b *namespaces.Pins, deadline time.Duration) wire.Reply
	order   order
	tokens  tokens
	queued  queued
	member  *quota.Member // of the host's shares; nil: this process itself
	process string        // at the other end

	ctx, reading context.Context // of requests that wait; reading also ends with the connection; nil before the first

	watching atomic.Int64 // WATCHes of this connection that wait
	leasing  atomic.Int64 // LEASEs of this connection that wait
	*Work                 // nil between batches
}

// Work is the memory that a session needs while it serves a batch; an idle one has none.
type Work struct {
	Req    *wire.Request // the present request
	Reply  wire.Reply
	Reqs   [server.MaxServe]wire.Request
	Hashes [server.MaxServe]kv.Hash // for LookAhead
	errs   [server.MaxServe]*wire.Error
	own    []kv.Hash // see keys
	sum    uint64    // of Store.Warm and Changes.Warm
}

var works = sync.Pool{New: func() any { return new(Work) }}

// Log writes a line that names the peer.
func (c *Session) Log(level slog.Level, msg string, args ...any) {
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

// Count counts the outcome of a request. A request of another sidecar is counted there,
// where the app has asked, and here only as served.
func (c *Session) Count(q *wire.Request, r *wire.Reply) {
	if c.from.Node == "" {
		c.Core.Count(q, r)
	} else {
		c.Core.Counts.Served.Add(int64(namespaces.KeysIn(q)))
	}
}

// keys returns the hashes of the keys of c.Req. They are valid until the next call.
func (c *Session) keys() []kv.Hash {
	q := c.Req
	c.own = c.own[:0]
	if q.Key != nil {
		c.own = append(c.own, c.Core.Names.Hash(q.Namespace, q.Key))
	}
	for _, k := range q.Keys {
		c.own = append(c.own, c.Core.Names.Hash(q.Namespace, k))
	}
	return c.own
}

// Refuse makes the reply to the present request an error, and counts it.
func (c *Session) Refuse(err *wire.Error) {
	c.Reply = wire.ErrorReply(err)
	c.Tally.Add(c.Core.Names.None, c.Req.Op, namespaces.Failed)
}

func (c *Session) answerError(conn *server.Conn, err *wire.Error) {
	c.Refuse(err)
	c.answer(conn)
}

func (c *Session) answer(conn *server.Conn) {
	c.Reply.ID = c.Req.ID
	conn.Out = wire.AppendReply(conn.Out, c.Req.Op, &c.Reply)
}

// NoRoom returns the error of a request for which there is no memory.
func NoRoom(err error) *wire.Error {
	if err == nil {
		return nil
	}
	return wire.Errorf(wire.Busy, "%v", err)
}
