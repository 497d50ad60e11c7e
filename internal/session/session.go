package session

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Session executes the requests of one connection, whatever its protocol: Handler speaks the socket's, and
// package memcached another one. All of it belongs to the connection's reader.
type Session struct {
	Sessions *Sessions
	Core     *engine.Engine
	By       access.Caller   // the app at the other end
	Names    namespaces.Pins // for one batch
	Now      kv.Moment       // of the batch
	Tally    Tally
	Quiet    bool // the client wants no answer to the present request

	from          kv.Process // another sidecar; zero: an app
	about         []any      // the peer, for the log
	refusalLogged bool       // a refusal has been logged
	batches       uint32
	// serveWaiting answers what cannot be answered in place.
	serveWaiting func(ctx context.Context, q *wire.Request, b *namespaces.Pins, deadline time.Duration) wire.Reply
	client       *quota.Client // of the host's shares; nil: this process itself
	process      string        // at the other end

	ctx, reading context.Context // of requests that wait; reading also ends with the connection; nil before the first

	*Scratch // nil between batches
}

// Scratch is the memory that a session needs while it serves a batch; an idle one has none.
type Scratch struct {
	Req    *wire.Request // the present request
	Reply  wire.Reply
	Reqs   [server.MaxFrames]wire.Request
	Hashes [server.MaxFrames]kv.Hash // for LookAhead
	errs   [server.MaxFrames]*wire.Error
	own    []kv.Hash // see Handler.keys
	sum    uint64    // of Store.Warm and Changes.Warm
}

var scratches = sync.Pool{New: func() any { return new(Scratch) }}

// LogLine writes a line that names the peer.
func (c *Session) LogLine(level slog.Level, msg string, args ...any) {
	log := c.Core.Config.Log
	if log.Enabled(context.Background(), level) {
		log.With(c.about...).Log(context.Background(), level, msg, args...)
	}
}

// Count counts the outcome of a request. A request of another sidecar is counted there,
// where the app has asked, and here only as served.
func (c *Session) Count(q *wire.Request, r *wire.Reply) {
	if c.from.Node == "" {
		c.Core.Count(q, r)
	} else {
		c.Core.Counts.Served.Add(int64(q.Subjects()))
	}
}

// Refuse makes the reply to the present request an error, and counts it.
func (c *Session) Refuse(err *wire.Error) {
	c.Reply = wire.ErrorReply(err)
	c.Tally.Add(c.Core.Namespaces.None, c.Req.Op, namespaces.Failed)
}

// Busy returns the error of a request for which there is no memory.
func Busy(err error) *wire.Error {
	if err == nil {
		return nil
	}
	return wire.Errorf(wire.Busy, "%v", err)
}

// Batch reads the clock, once for all requests that came in one read.
func (c *Session) Batch() {
	c.Now = c.Core.Clock.Read()
	c.Core.Node.CheckPause(c.Now.Boot)
	c.Scratch = scratches.Get().(*Scratch)
}

// Served gives back what the batch has borrowed.
func (c *Session) Served() {
	c.Names.Release()
	scratches.Put(c.Scratch)
	c.Scratch = nil
	if c.batches++; c.batches%batchSample == 0 {
		took := c.Core.Clock.Read().Boot - c.Now.Boot
		c.Sessions.Host.Batch(took)
	}
}

// batchSample: one batch in batchSample is timed.
const batchSample = 16

// Gone is told that no more requests come.
func (c *Session) Gone() {}

// Close ends the session.
func (c *Session) Close(err error) {
	if c.from.Node == "" {
		c.client.Release(quota.Connections)
	}
	c.client.Leave()
	if err != nil {
		c.LogLine(slog.LevelWarn, "connection closed", "reason", err)
	} else {
		c.LogLine(slog.LevelDebug, "connection closed")
	}
}

// Tenant returns the tenant of the connection and the process at its other end.
func (c *Session) Tenant() (tenant, process string) {
	if c.client == nil {
		return "", ""
	}
	return c.client.Tenant(), c.process
}

// Refusal returns why a request is refused, or nil if it may be served.
func (c *Session) Refusal(q *wire.Request) *wire.Error {
	err, missing := c.By.Refusal(q)
	if err != nil && !c.refusalLogged {
		c.refusalLogged = true
		c.LogLine(slog.LevelWarn,
			"refused a request: its user lacks a right; more refusals of this connection are not logged",
			"op", q.Op.String(), "right", missing.String(), "namespace", string(q.Namespace))
	}
	return err
}

// Config is what the sessions of a host need.
type Config struct {
	Engine    *engine.Engine
	Host      Host
	Version   string               // of the program, for HELLO
	BootClock string               // the boot clock's name; "": none that apps can read
	Limits    func() server.Limits // of the socket
}

// Host is the sidecar, as its sessions see it.
type Host interface {
	// Stats returns the answer to STATS.
	Stats() cachesidecar.Stats
	// Serve answers a request wherever its keys are. The pins are released while it
	// waits.
	Serve(ctx context.Context, q *wire.Request, b *namespaces.Pins, deadline time.Duration) wire.Reply
	// Enter keeps the store open until leave is called; false means that it is closed.
	Enter() (leave func(), ok bool)
	// Batch is told how long a batch took, for one batch in batchSample.
	Batch(took time.Duration)
}

// Sessions makes the sessions of a host.
type Sessions struct {
	Config
	goaway      goaway
	descriptors descriptors
}

// New returns the Sessions of a host.
func New(cfg Config) *Sessions { return &Sessions{Config: cfg} }

// session returns the session of a caller.
func (d *Sessions) session(by access.Caller, m *quota.Client) *Session {
	return &Session{
		Sessions: d, Core: d.Engine, By: by, client: m, Names: namespaces.Pins{Table: d.Engine.Namespaces, Client: m},
		serveWaiting: d.Host.Serve,
	}
}

// Join returns the session of a connection, which takes a place of its tenant's, as quota.UserTenant
// names it. The log names the client by about.
func (d *Sessions) Join(by access.Caller, owner, process string, about ...any) (*Session, error) {
	c := d.session(by, d.Engine.Places.Join(owner))
	c.process, c.about = process, about
	if err := c.client.Acquire(quota.Connections); err != nil {
		c.client.Leave()
		return nil, err
	}
	c.LogLine(slog.LevelDebug, "connection opened")
	return c, nil
}

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

// Execute executes c.Req with what this host has, and says whether it could: the reply is c.Reply, for which
// there is room, unless the connection has been killed.
func (c *Session) Execute(conn *server.Conn) bool {
	if c.Req.Op.Reads() {
		return c.readEntry(conn)
	}
	if q := c.Req; q.Op == wire.OpFill || q.Op == wire.OpSet && q.Mode != wire.ModeSet {
		switch n := c.Core.Copied(q, &c.Names); {
		case n <= SmallValue:
		case n >= quota.LongCopy && c.from.Node != "":
			return false // it must not delay the requests of other apps of that host
		default:
			if err := Busy(server.Turn(conn, n)); err != nil {
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

// readEntry is Execute for a METAGET. An answer to another sidecar must not delay others: a long value goes the
// slow way.
func (c *Session) readEntry(conn *server.Conn) bool {
	q := c.Req
	if n := c.Core.Copied(q, &c.Names); n > SmallValue {
		if c.from.Node != "" {
			return false
		}
		c.Names.Release()
		if err := Busy(conn.Grow(n+AnswerSlack, true)); err != nil { // it may wait: nothing is copied yet
			c.Refuse(err)
			return true
		}
	}
	if c.Core.ExecuteTo(q, &c.Names, c.Moment(conn), 0, &c.Reply); c.Reply.Status == wire.Moved {
		return false
	}
	if n := len(c.Reply.Value); n > SmallValue { // mostly there is room: the value may have grown just now
		if err := c.room(conn, n); err != nil {
			if q.OnlyReads() {
				c.Refuse(err)
			} else { // it was done, and BUSY would say that it was not: no answer goes
				conn.Kill()
			}
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
	return Busy(conn.Grow(n, false))
}

// Limit gives the present request its end, if it is a write.
func (c *Session) Limit(conn *server.Conn) {
	q := c.Req
	c.Core.Deadlines.Limit(q, c.Now.Boot+c.Core.Deadlines.Timeout(q))
	if server.Waited(conn) && !c.Quiet {
		q.Conn = server.EndOf(conn)
	}
}

// Tally counts the reads of a batch, apart from the counters that all connections share.
type Tally struct {
	served *atomic.Int64 // for another sidecar: counts all reads, whatever their outcome
	ns     *namespaces.Namespace
	op     wire.Op
	n      [namespaces.Outcomes]int64
}

// Add counts an outcome.
func (t *Tally) Add(ns *namespaces.Namespace, op wire.Op, o namespaces.Outcome) {
	if t.ns != ns || t.op != op {
		t.Flush()
		t.ns, t.op = ns, op
	}
	t.n[o]++
}

// Flush adds the counts to those that all connections share.
func (t *Tally) Flush() {
	for o, n := range t.n {
		switch {
		case n == 0:
			continue
		case t.served != nil:
			t.served.Add(n)
		default:
			t.ns.Counts[t.op][o].Add(n)
		}
		t.n[o] = 0
	}
}
