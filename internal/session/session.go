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
	"github.com/cachesidecar/cachesidecar/internal/places"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/verify"
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
	text    *text          // of a connection that speaks memcached's protocol; else nil
	member  *places.Member // of the host's shares; nil: this process itself
	process string         // at the other end

	ctx, reading context.Context // of requests that wait; reading also ends with the connection; nil before the first

	watching atomic.Int64 // WATCHes of this connection that wait
	leasing  atomic.Int64 // LEASEs of this connection that wait
	*work                 // nil between batches
}

// work is the memory that a session needs while it serves a batch; an idle one has none.
type work struct {
	req    *wire.Request // the present request
	reply  wire.Reply
	reqs   [rpc.MaxServe]wire.Request
	errs   [rpc.MaxServe]*wire.Error
	hashes [rpc.MaxServe]kv.Hash
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

// Batch reads the clock, once for all requests that came in one read.
func (c *Session) Batch() {
	c.now = c.Core.Clock.Read()
	c.Core.Node.CheckPause(c.now.Boot)
	c.work = works.Get().(*work)
}

// Served gives back what the batch has borrowed.
func (c *Session) Served() {
	c.Names.Release()
	works.Put(c.work)
	c.work = nil
	if c.batches++; c.batches%batchSample == 0 {
		took := c.Core.Clock.Read().Boot - c.now.Boot
		c.d.cfg.Host.Batch(took)
	}
}

// batchSample: one batch in batchSample is timed.
const batchSample = 16

// Gone gives back the lease tokens that the peer has no connection left to fill. From now
// on new tokens are given back too, since requests of the peer may still wait for long.
func (c *Session) Gone() {
	c.d.farewell.gone(c)
	c.giveBack()
}

// Owner returns the owner of the connection and the process at its other end.
func (c *Session) Owner() (owner, process string) {
	if c.member == nil {
		return "", ""
	}
	return c.member.Owner(), c.process
}

// Close ends the session.
func (c *Session) Close(err error) {
	c.giveBack()
	if c.from.Node == "" {
		c.member.Release(places.Connections)
	}
	c.member.Leave()
	if err != nil && !c.brief {
		c.log(slog.LevelWarn, "connection closed", "reason", err)
	} else {
		c.log(slog.LevelDebug, "connection closed")
	}
}

// Oversized answers a frame that cannot be taken.
func (c *Session) Oversized(conn *rpc.Conn, beginning []byte, length int, why error) {
	id, ok := wire.PeekID(beginning)
	if !ok {
		return // no request to answer; the log line must do
	}
	conn.Out = wire.AppendError(conn.Out, id, wire.Errorf(wire.TooLarge,
		"a frame of %d bytes: %v; the connection is closed", length, why))
}

// warmFrom is the least number of requests in a batch for which looking ahead pays.
const warmFrom = 4

// Serve answers the requests of a batch. It decodes them all, looks ahead in the store,
// and then serves them in their order.
func (c *Session) Serve(conn *rpc.Conn, frames [][]byte) error {
	defer c.tally.flush() // before the answers go: a client with an answer finds it counted
	keys, writes := 0, 0
	for i, frame := range frames {
		q := &c.reqs[i]
		c.errs[i] = wire.DecodeRequest(frame, q)
		if len(frames) < warmFrom || q.Key == nil || !c.hello {
			continue
		}
		if ns := c.Names.Read(c.nameOf(q)); ns != nil {
			c.hashes[keys] = ns.Hash(q.Key)
			keys++
			if q.Op == wire.OpSet {
				writes++
			}
		}
	}
	c.lookAhead(keys, writes)
	for i, frame := range frames {
		c.req = &c.reqs[i]
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
		if len(conn.Out) > flushAt && !conn.Flush() {
			return nil // the connection ends by itself
		}
	}
	return nil
}

// lookAhead touches what the store has of the first keys of hashes, if this host owns them,
// and what their writes will need.
func (c *Session) lookAhead(keys, writes int) {
	owned := c.hashes[:0]
	for _, h := range c.hashes[:keys] {
		if c.Core.Node.OwnershipEpoch(h.Partition()) != 0 {
			owned = append(owned, h)
		}
	}
	if len(owned) < warmFrom {
		return
	}
	c.sum += c.Core.Store.Warm(owned)
	if writes >= warmFrom {
		c.sum += c.Core.Changes.Warm(owned)
	}
}

// flushAt is the length in bytes at which answers are written: one more answer of up to
// smallValue fits behind them.
const flushAt = 32 << 10

func (c *Session) nameOf(q *wire.Request) []byte {
	if q.Namespace == nil {
		return c.Namespace
	}
	return q.Namespace
}

// forApps are the operations that need a caller with rights, or that concern an app's
// connection. No sidecar asks another one for them.
var forApps = [wire.OpCount]bool{
	wire.OpHello: true, wire.OpWatch: true, wire.OpKeys: true, wire.OpHot: true, wire.OpSlow: true,
	wire.OpReload: true, wire.OpDrain: true, wire.OpLeaving: true, wire.OpShared: true, wire.OpTouched: true,
}

// check completes a request, and returns why it is refused, or nil.
func (c *Session) check(q *wire.Request) *wire.Error {
	if !c.hello && q.Op != wire.OpHello {
		return wire.Errorf(wire.BadRequest, "say HELLO before %s", q.Op)
	}
	q.Namespace = c.nameOf(q)
	q.App = c.from.Node == ""
	switch {
	case !q.App && forApps[q.Op]:
		return wire.Errorf(wire.Unsupported, "%s is for apps", q.Op)
	case !q.App:
		return nil
	case q.Op.Peer() || q.Has(wire.Settle):
		return wire.Errorf(wire.Unsupported, "this is between sidecars")
	case verify.Reserved(q.Namespace):
		return verify.ErrReserved
	}
	return c.Refusal(q)
}

// serve answers c.req.
func (c *Session) serve(conn *rpc.Conn) {
	q := c.req
	if err := c.check(q); err != nil {
		c.answerError(conn, err)
		return
	}
	c.Core.Deadlines.Limit(q, c.now.Boot+c.Core.Deadlines.Timeout(q))
	if c.order.waiting.Load() > 0 && c.order.has(c.keys()) || c.Core.Acks.Wanted(q) {
		c.later(conn)
		return
	}
	switch q.Op {
	case wire.OpGet, wire.OpLease:
		c.get(conn)
	case wire.OpMGet:
		c.mget(conn)
	case wire.OpMetaGet:
		c.metaGet(conn)
	case wire.OpHello:
		c.reply = c.welcome()
		c.answer(conn)
	case wire.OpStats:
		c.tally.flush() // those of the same batch
		if q.Has(wire.Cluster) {
			c.later(conn)
			return
		}
		c.reply = wire.BodyReply(c.d.cfg.Host.Stats())
		c.answer(conn)
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
	case wire.OpTouched:
		c.touched(conn)
	case wire.OpForget:
		if c.from.Node == "" {
			c.later(conn)
			return
		}
		c.execute(conn)
	case wire.OpPull, wire.OpFetch, wire.OpProbe, wire.OpApplied:
		c.ofPeers(conn)
	case wire.OpDelete:
		if !c.Core.Owners.OwnsAll(c.keys()) { // all keys are deleted here, or none
			c.later(conn)
			return
		}
		c.execute(conn)
	case wire.OpFlush, wire.OpRing:
		if q.App && !c.Core.Node.Alone() && (q.Op == wire.OpRing || q.Has(wire.Cluster)) {
			c.later(conn)
			return
		}
		c.execute(conn)
	default:
		c.execute(conn)
	}
}

// execute answers c.req from what this host has, or later.
func (c *Session) execute(conn *rpc.Conn) {
	if c.Core.ExecuteTo(c.req, &c.Names, c.now, 0, &c.reply); c.reply.Status == wire.Moved {
		c.later(conn)
		return
	}
	c.count(c.req, &c.reply)
	c.given(c.req, &c.reply)
	c.answer(conn)
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

func (c *Session) answerError(conn *rpc.Conn, err *wire.Error) {
	c.reply = wire.ErrorReply(err)
	c.tally.add(c.Core.Names.None, c.req.Op, namespaces.Failed)
	c.answer(conn)
}

func (c *Session) answer(conn *rpc.Conn) {
	c.reply.ID = c.req.ID
	if t := c.text; t != nil {
		conn.Out = appendReply(conn.Out, &t.form, &t.n, c.req, &c.reply)
		return
	}
	conn.Out = wire.AppendReply(conn.Out, c.req.Op, &c.reply)
}
