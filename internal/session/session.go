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

// Session serves one connection on the socket. All of it belongs to the
// connection's reader.
type Session struct {
	d         *Doors
	Core      *engine.Engine
	from      kv.Process    // another sidecar; none is an app
	who       []any         // is at the other end, for the log
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
	member  *places.Member // of the host's shares; nil is this process
	process string         // at the other end

	ctx, reading context.Context // of requests that wait; that of reads ends with the connection; nil before the first

	watching atomic.Int64 // requests of this connection
	leasing  atomic.Int64 // LEASEs of it that wait
	*work                 // while a batch is served
}

// work is what a session needs while it serves a batch; an idle one has none.
type work struct {
	req    *wire.Request // the present one
	reply  wire.Reply
	reqs   [rpc.MaxServe]wire.Request
	errs   [rpc.MaxServe]*wire.Error
	hashes [rpc.MaxServe]kv.Hash
	own    []kv.Hash // of keys
	sum    uint64    // of Store.Warm
}

var works = sync.Pool{New: func() any { return new(work) }}

// Doors make the sessions of a host.
type Doors struct {
	Engine    *engine.Engine
	Host      Host
	Version   string            // of the program, for HELLO
	BootClock string            // the boot clock's name; "" is none that apps could read
	Limits    func() rpc.Limits // of the socket
}

// Host is the sidecar, as its sessions see it.
type Host interface {
	// Stats returns what STATS answers.
	Stats() wire.Stats
	// Serve answers a request wherever its keys are. Pins are released while it waits.
	Serve(ctx context.Context, q *wire.Request, b *namespaces.Pins, deadline time.Duration) wire.Reply
	// Probed reads for another host's VERIFY.
	Probed(p *wire.Probe) wire.Probed
	// Enter keeps the store until leave is called; false says that it has gone.
	Enter() (leave func(), ok bool)
	// Batch is told how long a batch took, of one in so many.
	Batch(took time.Duration)
}

// Of makes the session of a caller that has said HELLO, whoever that is.
func (d *Doors) Of(by access.Caller, m *places.Member) *Session {
	return &Session{
		d: d, Core: d.Engine, By: by, member: m, hello: true, Namespace: DefaultNamespace,
		Names: namespaces.Pins{Table: d.Engine.Names, Member: m}, slow: d.Host.Serve,
	}
}

// App makes the session of an app's connection.
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

var DefaultNamespace = []byte(namespaces.Default)

// log writes a line with who is at the other end.
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

// batchSample: one batch in so many is timed.
const batchSample = 16

// Gone gives back what the peer has no connection to fill any more: also what it
// is given from now on, since requests of it may wait for long yet.
func (c *Session) Gone() { c.giveBack() }

// Owner says whose the connection is.
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
		return // nobody to answer to: the log line must do
	}
	conn.Out = wire.AppendError(conn.Out, id, wire.Errorf(wire.TooLarge, "a frame of %d bytes: %v; the connection is closed", length, why))
}

// warmFrom is how many requests at a time are worth a look ahead.
const warmFrom = 4

// Serve answers requests: it decodes them all, looks ahead in the store, and
// then serves them in their order.
func (c *Session) Serve(conn *rpc.Conn, frames [][]byte) error {
	defer c.tally.flush() // before the answers go: who has one finds it counted
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

// flushAt is how long answers may get before they are written, in bytes: one
// more of up to smallValue fits behind them.
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
		c.tally.flush() // of the same batch
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
		if !c.Core.OwnsAll(c.keys()) { // all of them here, or none
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

// execute answers c.req from what this host holds, or later.
func (c *Session) execute(conn *rpc.Conn) {
	if c.reply = c.Core.Execute(c.req, &c.Names, c.now, 0); c.reply.Status == wire.Moved {
		c.later(conn)
		return
	}
	c.count(c.req, &c.reply)
	c.given(c.req, &c.reply)
	c.answer(conn)
}

// count counts what a request has come to. One of another sidecar counts there,
// where an app has asked.
func (c *Session) count(q *wire.Request, r *wire.Reply) {
	if c.from.Node == "" {
		c.Core.Count(q, r)
	} else {
		c.Core.Counts.Served.Add(int64(namespaces.KeysIn(q)))
	}
}

// keys are the hashes of the keys of c.req, until it is called again.
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

// MaxConnLeases bounds the LEASEs of one app's connection that wait: a connection of
// which too much waits is not read from, and the FILL that ends the wait may come
// over it. Of another host's it is half of what may wait there, too.
const MaxConnLeases = 512

func (c *Session) mostLeases() int64 {
	if c.from.Node != "" {
		return peer.MaxCalls / 2
	}
	return MaxConnLeases
}

// later answers c.req when it can be, after the requests of the same keys that
// this connection has sent before.
func (c *Session) later(conn *rpc.Conn) {
	p := c.pend(conn)
	if p == nil {
		return
	}
	c.order.enter(&p.turn, c.keys(), c.req.Op != wire.OpLease) // who fills must not wait for who waits for that
	if p.q.Op == wire.OpFill {
		p.fills = c.tokens.take(p.q.Token) // the end of the connection leaves it to this one
	}
	c.Names.Release() // it may wait for others to end
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

// long answers another host's read with a long value, after what is short: it may not
// hold up what other apps of that host ask for.
func (c *Session) long(conn *rpc.Conn, size int) {
	if p := c.pend(conn); p != nil {
		c.Names.Release()
		conn.Begin(nil)
		conn.Long(size, p.long)
	}
}

// pend makes c.req one that waits, unless there is no room for it.
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

// awaited says whether a request is an app's read, whose answer is to find room.
func (c *Session) awaited(q *wire.Request) bool {
	return c.from.Node == "" && (q.Op == wire.OpGet || q.Op == wire.OpMGet)
}

// leased says that a LEASE waits no more.
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
