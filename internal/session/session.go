package session

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/places"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/verify"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// Session serves one connection. All of it belongs to the connection's reader.
type Session struct {
	d         *Doors
	Core      *engine.Engine
	from      kv.Process    // another sidecar; zero: an app
	who       []any         // the peer, for the log
	By        access.Caller // the app at the other end
	told      bool          // a refusal has been logged
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
	sum    uint64    // of Store.Warm
}

var works = sync.Pool{New: func() any { return new(work) }}

// Doors makes the sessions of a host.
type Doors struct {
	Engine    *engine.Engine
	Host      Host
	Version   string            // of the program, for HELLO
	BootClock string            // the boot clock's name; "": none that apps can read
	Limits    func() rpc.Limits // of the socket
}

// Host is the sidecar, as its sessions see it.
type Host interface {
	// Stats returns the answer to STATS.
	Stats() cachesidecar.Stats
	// Serve answers a request wherever its keys are. The pins are released while it
	// waits.
	Serve(ctx context.Context, q *wire.Request, b *namespaces.Pins, deadline time.Duration) wire.Reply
	// Probed reads a key for another host's VERIFY.
	Probed(p *wire.Probe) wire.Probed
	// Enter keeps the store open until leave is called; false means that it is closed.
	Enter() (leave func(), ok bool)
	// Batch is told how long a batch took, for one batch in batchSample.
	Batch(took time.Duration)
}

// Of returns the session of a caller that needs no HELLO.
func (d *Doors) Of(by access.Caller, m *places.Member) *Session {
	return &Session{
		d: d, Core: d.Engine, By: by, member: m, hello: true, Namespace: DefaultNamespace,
		Names: namespaces.Pins{Table: d.Engine.Names, Member: m}, slow: d.Host.Serve,
	}
}

// App returns the session of an app's connection.
func (d *Doors) App(nc net.Conn) (rpc.Handler, error) {
	who, err := unixsock.PeerOf(nc)
	if err != nil {
		return nil, err
	}
	c := d.Of(d.Engine.Access.Caller(who), d.Engine.Shares.Join(places.UserOwner(who.UID)))
	c.hello, c.who, c.process = false, []any{"pid", who.PID, "uid", who.UID, "gid", who.GID}, fmt.Sprint("pid ", who.PID)
	if err := c.member.Acquire(places.Connections); err != nil {
		c.member.Leave()
		return nil, err
	}
	c.log(slog.LevelDebug, "connection opened")
	return c, nil
}

// DefaultNamespace is the namespace of connections whose HELLO names none.
var DefaultNamespace = []byte(namespaces.Default)

// log writes a line that names the peer.
func (c *Session) log(level slog.Level, msg string, args ...any) {
	log := c.Core.Config.Log
	if log.Enabled(context.Background(), level) {
		log.With(c.who...).Log(context.Background(), level, msg, args...)
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
		c.d.Host.Batch(took)
	}
}

// batchSample: one batch in batchSample is timed.
const batchSample = 16

// Gone gives back the lease tokens that the peer has no connection left to fill. From now
// on new tokens are given back too, since requests of the peer may still wait for long.
func (c *Session) Gone() { c.giveBack() }

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
	if err != nil {
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
	conn.Out = wire.AppendError(conn.Out, id, wire.Errorf(wire.TooLarge, "a frame of %d bytes: %v; the connection is closed", length, why))
}

// warmFrom is the least number of requests in a batch for which looking ahead pays.
const warmFrom = 4

// Serve answers the requests of a batch. It decodes them all, looks ahead in the store,
// and then serves them in their order.
func (c *Session) Serve(conn *rpc.Conn, frames [][]byte) error {
	defer c.tally.flush() // before the answers go: a client with an answer finds it counted
	keys := 0
	for i, frame := range frames {
		q := &c.reqs[i]
		c.errs[i] = wire.DecodeRequest(frame, q)
		if len(frames) < warmFrom || q.Key == nil || !c.hello {
			continue
		}
		if ns := c.Names.Read(c.nameOf(q)); ns != nil {
			if h := ns.Key(q.Key).Hash; c.Core.Node.OwnershipEpoch(h.Partition()) != 0 {
				c.hashes[keys] = h
				keys++
			}
		}
	}
	if keys >= warmFrom {
		c.sum += c.Core.Store.Warm(c.hashes[:keys])
	}
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

// flushAt is the length in bytes at which answers are written: one more answer of up to
// smallValue fits behind them.
const flushAt = 32 << 10

func (c *Session) nameOf(q *wire.Request) []byte {
	if q.Namespace == nil {
		return c.Namespace
	}
	return q.Namespace
}

// serve answers c.req.
func (c *Session) serve(conn *rpc.Conn) {
	q := c.req
	if !c.hello && q.Op != wire.OpHello {
		c.answerError(conn, wire.Errorf(wire.BadRequest, "say HELLO before %s", q.Op))
		return
	}
	q.Namespace = c.nameOf(q)
	q.App = c.from.Node == ""
	if q.App && (q.Op.Peer() || q.Has(wire.Settle)) {
		c.answerError(conn, wire.Errorf(wire.Unsupported, "this is between sidecars"))
		return
	}
	if q.App && verify.Reserved(q.Namespace) {
		c.answerError(conn, verify.ErrReserved)
		return
	}
	if q.App {
		if err := c.Refusal(q); err != nil {
			c.answerError(conn, err)
			return
		}
	}
	c.Core.Limit(q, c.now.Boot+c.Core.Timeout(q))
	if c.order.waiting.Load() > 0 && c.order.has(c.keys()) || c.Core.WantsAll(q) {
		c.later(conn)
		return
	}
	switch q.Op {
	case wire.OpGet, wire.OpLease:
		c.get(conn)
	case wire.OpMGet:
		c.mget(conn)
	case wire.OpHello:
		c.reply = c.welcome()
		c.answer(conn)
	case wire.OpStats:
		c.tally.flush() // those of the same batch
		if q.Has(wire.Cluster) {
			c.later(conn)
			return
		}
		c.reply = wire.BodyReply(c.d.Host.Stats())
		c.answer(conn)
	case wire.OpWatch:
		c.watch(conn)
	case wire.OpVerify:
		c.later(conn)
	case wire.OpForget:
		if c.from.Node == "" {
			c.later(conn)
			return
		}
		c.execute(conn)
	case wire.OpPull, wire.OpFetch, wire.OpProbe, wire.OpApplied:
		c.ofPeers(conn)
	case wire.OpDelete:
		if !c.Core.OwnsAll(c.keys()) { // all keys are deleted here, or none
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
	if c.reply = c.Core.Execute(c.req, &c.Names, c.now, 0); c.reply.Status == wire.Moved {
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
		c.own = append(c.own, c.Core.Hash(q.Namespace, q.Key))
	}
	for _, k := range q.Keys {
		c.own = append(c.own, c.Core.Hash(q.Namespace, k))
	}
	return c.own
}

// MaxSlow bounds the requests of all connections that wait.
const MaxSlow = 1 << 16

// MaxConnLeases bounds the waiting LEASEs of one app's connection. A connection with too
// many waiting requests is not read, but the FILL that ends the wait may come over it.
// For another host's connection the bound is half of the calls that may wait there.
const MaxConnLeases = 512

func (c *Session) mostLeases() int64 {
	if c.from.Node != "" {
		return peer.MaxCalls / 2
	}
	return MaxConnLeases
}

// later answers c.req when that is possible, after earlier requests of this connection
// for the same keys.
func (c *Session) later(conn *rpc.Conn) {
	p := c.pend(conn)
	if p == nil {
		return
	}
	c.order.enter(&p.turn, c.keys(), c.req.Op != wire.OpLease) // a FILL must not wait for the LEASEs that wait for it
	if p.q.Op == wire.OpFill {
		p.fills = c.tokens.take(p.q.Token) // the request has it now, and not the end of the connection
	}
	c.Names.Release() // the request may wait for others to end
	var room func() bool
	if c.awaited(c.req) && !conn.Account().Awaits() {
		room = conn.Account().Awaits
	}
	switch stands := conn.Begin(room); {
	case !stands && engine.ReadOp(p.q.Op):
		conn.Run(true, p.dropped)
	case !p.ask():
		conn.Run(engine.ReadOp(p.q.Op), p.serve)
	}
}

// long answers another host's read with a long value, after the short answers: it must
// not delay the answers to other apps of that host.
func (c *Session) long(conn *rpc.Conn, size int) {
	if p := c.pend(conn); p != nil {
		c.Names.Release()
		conn.Begin(nil)
		conn.Long(size, p.long)
	}
}

// pend makes a Pending of c.req. If there is no room, it answers c.req and returns nil.
func (c *Session) pend(conn *rpc.Conn) *Pending {
	if c.req.Op == wire.OpLease && c.leasing.Add(1) > c.mostLeases() {
		c.leasing.Add(-1)
		c.answerError(conn, wire.Errorf(wire.Busy, "%d LEASEs of this connection wait: try again, or load the key without filling it", c.mostLeases()))
		return nil
	}
	size := pendingSize + sizeOf(c.req)
	err := c.member.Acquire(places.Waiting)
	if err == nil {
		if err = noRoom(conn.Hold(size)); err != nil {
			c.member.Release(places.Waiting)
		}
	}
	if err != nil {
		c.leased(c.req)
		c.answerError(conn, err)
		return nil
	}
	c.Core.Waiting.Add(1)
	if c.ctx == nil {
		c.ctx = places.With(rpc.WithAccount(context.Background(), conn.Account()), c.member)
		c.reading = conn.While(c.ctx)
	}
	if c.awaited(c.req) {
		conn.Account().Reads(1)
	}
	return &Pending{Session: c, Conn: conn, q: c.req.Clone(), size: size, deadline: c.Core.DeadlineOf(c.req, c.now)}
}

// awaited reports whether a request is an app's read, which needs room for its answer.
func (c *Session) awaited(q *wire.Request) bool {
	return c.from.Node == "" && (q.Op == wire.OpGet || q.Op == wire.OpMGet)
}

// leased notes that a LEASE does not wait any more.
func (c *Session) leased(q *wire.Request) {
	if q.Op == wire.OpLease {
		c.leasing.Add(-1)
	}
}

func (c *Session) answerError(conn *rpc.Conn, err *wire.Error) {
	c.reply = wire.ErrorReply(err)
	c.tally.add(c.Core.Names.None, c.req.Op, namespaces.Failed)
	c.answer(conn)
}

func (c *Session) answer(conn *rpc.Conn) {
	c.reply.ID = c.req.ID
	conn.Out = wire.AppendReply(conn.Out, c.req.Op, &c.reply)
}

// welcome answers a HELLO.
func (c *Session) welcome() wire.Reply {
	h := &c.req.Hello
	if !slices.Contains(h.Versions, wire.Version) {
		return wire.ErrorReply(wire.Errorf(wire.Unsupported, "protocol versions %v: this sidecar speaks [%d]", h.Versions, wire.Version))
	}
	if err := c.By.Show(h.Token); err != nil {
		return wire.ErrorReply(err)
	}
	if h.Namespace != "" {
		if !kv.ValidNamespace(h.Namespace) {
			return wire.ErrorReply(namespaces.BadName([]byte(h.Namespace)))
		}
		c.Namespace = []byte(h.Namespace)
	}
	c.hello = true
	c.log(slog.LevelDebug, "hello", "client", h.Client)
	l := c.d.Limits()
	return wire.BodyReply(wire.Welcome{
		Version: wire.Version, Node: c.Core.Config.Node, Server: c.d.Version, Features: engine.Features,
		Limits: wire.Limits{
			Key: kv.MaxKeyLen, Value: c.Core.Config.MaxValue, Frame: l.MaxFrame, Keys: wire.MaxKeys,
			InFlight: l.MaxInFlight, TTLMS: wire.MaxTTL, TimeoutMS: c.Core.Config.RequestTimeout.Milliseconds(),
		},
		Epoch: uint64(c.Core.Node.Self().Epoch),
		Hash:  wire.Hashing{Name: wire.HashName, Seed: c.Core.Config.Seed, Partitions: kv.Partitions},
		Boot:  wire.BootClock{ID: c.d.BootClock, NowNS: uint64(c.Core.Clock.Read().Boot)},
	})
}
