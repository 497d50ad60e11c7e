package session

import (
	"net"

	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/verify"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// DefaultNamespace is the namespace of connections whose HELLO names none.
var DefaultNamespace = []byte(namespaces.Default)

// Of returns the handler of a caller that needs no HELLO.
func (d *Sessions) Of(by access.Caller, a *quota.Account) *Handler {
	return &Handler{Session: d.session(by, a), hello: true, Namespace: DefaultNamespace}
}

// App returns the handler of an app's connection.
func (d *Sessions) App(nc net.Conn) (server.Handler, error) {
	app, err := unixsock.PeerOf(nc)
	if err != nil {
		return nil, err
	}
	c, err := d.Join(d.Engine.Access.Caller(app), quota.App{User: app.UID, Process: app.PID},
		"pid", app.PID, "uid", app.UID, "gid", app.GID)
	if err != nil {
		return nil, err
	}
	return &Handler{Session: c, Namespace: DefaultNamespace}, nil
}

// Peer returns the handler of another sidecar's requests: it needs no HELLO, and its requests go no
// further than this host.
func (d *Sessions) Peer(from kv.Process) server.Handler {
	c := d.Of(access.Caller{}, nil)
	c.from, c.about, c.serveWaiting = from, []any{"from", from.Node}, d.Engine.ServePeer
	c.Tally.served = &d.Engine.Counts.Served
	return c
}

// Gone gives back the lease tokens that the peer has no connection left to fill. From now
// on new tokens are given back too, since requests of the peer may still wait for long.
func (c *Handler) Gone() {
	c.Sessions.goaway.gone(c)
	c.giveBack()
}

// Close ends the connection's session.
func (c *Handler) Close(err error) {
	c.giveBack()
	c.Sessions.descriptors.closed(c.passed)
	if c.brief {
		err = nil
	}
	c.Session.Close(err)
}

// Oversized answers a frame that cannot be taken.
func (c *Handler) Oversized(conn *server.Conn, beginning []byte, length int, why error) {
	id, ok := wire.PeekID(beginning)
	if !ok {
		return // no request to answer; the log line must do
	}
	conn.Out = wire.AppendError(conn.Out, id, wire.Errorf(wire.TooLarge,
		"a frame of %d bytes: %v; the connection is closed", length, why))
}

// Serve answers the requests of a batch. It decodes them all, looks ahead in the store,
// and then serves them in their order.
func (c *Handler) Serve(conn *server.Conn, frames [][]byte) error {
	defer c.Tally.Flush() // before the answers go: a client with an answer finds it counted
	keys, writes := 0, 0
	asked := false // by apps of another host
	for i, frame := range frames {
		q := &c.Reqs[i]
		c.errs[i] = wire.DecodeRequest(frame, q)
		asked = asked || q.By != 0
		if len(frames) < WarmFrom || q.Key == nil || !c.hello {
			continue
		}
		if ns := c.Names.Read(c.nameOf(q)); ns != nil {
			c.Hashes[keys] = ns.Hash(q.Key)
			keys++
			if q.Op == wire.OpSet {
				writes++
			}
		}
	}
	if asked && c.from.Node != "" {
		c.Core.Work.Share()
	}
	c.LookAhead(keys, writes)
	for i, frame := range frames {
		c.Req = &c.Reqs[i]
		if err := c.errs[i]; err != nil {
			if _, ok := wire.PeekID(frame); !ok {
				return err // no id to answer to
			}
			c.answerError(conn, err)
			continue
		}
		if c.serve(conn); c.By.Ended != nil {
			return c.By.Ended
		}
		if len(conn.Out) > FlushAt {
			c.Names.Release() // Flush may wait
			conn.Flush()
		}
		if conn.Lost() {
			return nil // the connection ends by itself
		}
	}
	return nil
}

// FlushAt is the length in bytes at which answers are written: one more answer of up to
// SmallValue fits behind them.
const FlushAt = 32 << 10

// check completes a request, and returns why it is refused, or nil.
func (c *Handler) check(q *wire.Request) *wire.Error {
	if !c.hello && q.Op != wire.OpHello {
		return wire.Errorf(wire.BadRequest, "say HELLO before %s", q.Op)
	}
	q.Namespace = c.nameOf(q)
	q.App = c.from.Node == ""
	switch {
	case !q.App && q.Op.OfApps():
		return wire.Errorf(wire.Unsupported, "%s is for apps", q.Op)
	case !q.App:
		return nil
	case q.Op.Peer() || q.Has(wire.LateWrite) || q.By != 0:
		return wire.Errorf(wire.Unsupported, "this is between sidecars")
	case verify.Reserved(q.Namespace):
		return verify.ErrReserved
	}
	q.By = c.App
	return c.Refusal(q)
}

// serve answers c.Req.
func (c *Handler) serve(conn *server.Conn) {
	q := c.Req
	if err := c.check(q); err != nil {
		c.answerError(conn, err)
		return
	}
	if !q.App && q.Op != wire.OpGet {
		c.Names.By = c.asker(q, conn)
	}
	q.Region = regionOf(c, q)
	c.Limit(conn)
	if q.Op == wire.OpHits { // it waits for no request of its keys
		c.hits(conn)
		return
	}
	if c.order.waiting.Load() > 0 && c.order.has(c.keys()) || c.Core.Acks.Wanted(q) {
		c.later(conn)
		return
	}
	switch q.Op {
	case wire.OpGet, wire.OpLease:
		c.get(conn)
	case wire.OpMGet:
		c.mget(conn)
	case wire.OpHello:
		c.Reply = c.welcome()
		c.appendReply(conn)
	case wire.OpStats:
		c.Tally.Flush() // those of the same batch
		if q.Has(wire.Cluster) {
			c.later(conn)
			return
		}
		c.Reply = wire.BodyReply(c.Sessions.Host.Stats())
		c.appendReply(conn)
	case wire.OpWatch:
		c.watch(conn)
	case wire.OpVerify, wire.OpReload, wire.OpDrain:
		c.later(conn)
	case wire.OpKeys, wire.OpHot, wire.OpSlow:
		c.inspect(conn)
	case wire.OpLeaving:
		c.leaving(conn)
	case wire.OpShared:
		c.share(conn)
	case wire.OpPull, wire.OpFetch, wire.OpProbe, wire.OpApplied:
		c.answerPeer(conn)
	default:
		if asksOthers(c, q) {
			c.later(conn)
			return
		}
		c.answerOrLater(conn, c.Execute(conn))
	}
}

// answerOrLater answers c.Req if it has been served, and else later.
func (c *Handler) answerOrLater(conn *server.Conn, served bool) {
	if !served {
		c.later(conn)
		return
	}
	c.given(c.Req, &c.Reply)
	c.appendReply(conn)
}

// asksOthers says whether a request that this host executes asks other hosts too.
func asksOthers(c *Handler, q *wire.Request) bool {
	switch q.Op {
	case wire.OpForget:
		return c.from.Node == ""
	case wire.OpFlush, wire.OpRing:
		return q.App && !c.Core.Node.SingleNode() && (q.Op == wire.OpRing || q.Has(wire.Cluster))
	}
	return false
}
