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
	App           uint64     // the app, as other hosts are told of it; see quota.App
	about         []any      // the peer, for the log
	refusalLogged bool       // a refusal has been logged
	batches       uint32
	// serveWaiting answers what cannot be answered in place.
	serveWaiting func(ctx context.Context, q *wire.Request, b *namespaces.Pins, deadline time.Duration) wire.Reply
	account      *quota.Account // of the app; nil: this process itself, or another sidecar, which has askers
	askers       askers

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
func (ss *Session) LogLine(level slog.Level, msg string, args ...any) {
	log := ss.Core.Config.Log
	if log.Enabled(context.Background(), level) {
		log.With(ss.about...).Log(context.Background(), level, msg, args...)
	}
}

// Count counts the outcome of a request. A request of another sidecar is counted there,
// where the app has asked, and here only as served.
func (ss *Session) Count(q *wire.Request, r *wire.Reply) {
	if ss.from.Node == "" {
		ss.Core.Count(q, r)
	} else {
		ss.Core.Counts.Served.Add(int64(q.Subjects()))
	}
}

// Refuse makes the reply to the present request an error, and counts it.
func (ss *Session) Refuse(err *wire.Error) {
	ss.Reply = wire.ErrorReply(err)
	ss.Tally.Add(ss.Core.Namespaces.None, ss.Req.Op, namespaces.Failed)
}

// Busy returns the error of a request for which there is no memory.
func Busy(err error) *wire.Error {
	if err == nil {
		return nil
	}
	return wire.Errorf(wire.Busy, "%v", err)
}

// Batch reads the clock, once for all requests that came in one read.
func (ss *Session) Batch() {
	ss.Now = ss.Core.Clock.Read()
	ss.Core.Node.CheckPause(ss.Now.Boot)
	ss.Scratch = scratches.Get().(*Scratch)
}

// Served gives back what the batch has borrowed.
func (ss *Session) Served() {
	ss.Names.Release()
	scratches.Put(ss.Scratch)
	ss.Scratch = nil
	if ss.batches++; ss.batches%batchSample == 0 {
		took := ss.Core.Clock.Read().Boot - ss.Now.Boot
		ss.Sessions.Host.Batch(took)
	}
}

// batchSample: one batch in batchSample is timed.
const batchSample = 16

// Gone is told that no more requests come.
func (ss *Session) Gone() {}

// Close ends the session.
func (ss *Session) Close(err error) {
	ss.account.Release(quota.Connections)
	ss.askers.close()
	if err != nil {
		ss.LogLine(slog.LevelWarn, "connection closed", "reason", err)
	} else {
		ss.LogLine(slog.LevelDebug, "connection closed")
	}
}

// Account returns the account of the connection.
func (ss *Session) Account(*quota.Budget) *quota.Account { return ss.account }

// Refusal returns why a request is refused, or nil if it may be served.
func (ss *Session) Refusal(q *wire.Request) *wire.Error {
	err, missing := ss.By.Refusal(q)
	if err != nil && !ss.refusalLogged {
		ss.refusalLogged = true
		ss.LogLine(slog.LevelWarn,
			"refused a request: its user lacks a right; more refusals of this connection are not logged",
			"op", q.Op.String(), "right", missing.String(), "asked_namespace", string(q.Namespace))
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
func (d *Sessions) session(by access.Caller, a *quota.Account) *Session {
	return &Session{
		Sessions: d, Core: d.Engine, By: by, account: a, Names: namespaces.Pins{Table: d.Engine.Namespaces, By: a},
		serveWaiting: d.Host.Serve,
	}
}

// Join returns the session of an app's connection, which takes a place of its user's. The log names the client by
// about.
func (d *Sessions) Join(by access.Caller, app quota.App, about ...any) (*Session, error) {
	c := d.session(by, d.Engine.Budget.Open(app.Names("")))
	c.App, c.about, c.account.Administers = app.Number(), about, by.Administers()
	if err := c.account.Acquire(quota.Connections); err != nil {
		c.account.Close()
		return nil, err
	}
	c.LogLine(slog.LevelDebug, "connection opened")
	return c, nil
}

// WarmFrom is the least number of requests in a batch for which looking ahead pays.
const WarmFrom = 4

// LookAhead touches what the store has of the first keys of Hashes, if this host owns them,
// and what their writes will need.
func (ss *Session) LookAhead(keys, writes int) {
	owned := ss.Hashes[:0]
	for _, h := range ss.Hashes[:keys] {
		if ss.Core.Node.OwnershipEpoch(h.Partition()) != 0 {
			owned = append(owned, h)
		}
	}
	if len(owned) < WarmFrom {
		return
	}
	ss.sum += ss.Core.Store.Warm(owned)
	if writes >= WarmFrom {
		ss.sum += ss.Core.Changes.Warm(owned)
	}
}

// Execute executes c.Req with what this host has, and says whether it could: the reply is c.Reply, for which
// there is room, unless the connection has been killed.
func (ss *Session) Execute(conn *server.Conn) bool {
	if ss.Req.Op.Reads() {
		return ss.readEntry(conn)
	}
	if q := ss.Req; q.Op == wire.OpFill || q.Op == wire.OpSet && q.Mode != wire.ModeSet {
		switch n := ss.Core.Copied(q, &ss.Names); {
		case n <= SmallValue:
		case n >= quota.LongCopy && ss.from.Node != "":
			return false // it must not delay the requests of other apps of that host
		default:
			if err := Busy(conn.BeginCopy(n)); err != nil {
				ss.Refuse(err)
				return true
			}
			defer conn.EndCopy(n)
			ss.Limit(conn)
		}
	}
	if ss.Core.ExecuteTo(ss.Req, &ss.Names, ss.Moment(conn), 0, &ss.Reply); ss.Reply.Status == wire.Moved {
		return false
	}
	ss.Count(ss.Req, &ss.Reply)
	return true
}

// AnswerSlack is the room that an answer takes beside its value, in bytes; in memcached's
// protocol it may repeat a key.
const AnswerSlack = 512

// SmallValue is the longest value, in bytes, that is appended without asking for room.
const SmallValue = 31 << 10

// Moment returns when a read happens: with its batch, unless the reader has had to wait since, for
// a client that is slow or for room. A value may have ended meanwhile, and so may a lease.
func (ss *Session) Moment(conn *server.Conn) kv.Moment {
	if !conn.Waited() {
		return ss.Now
	}
	now := ss.Core.Clock.Read()
	ss.Core.Node.CheckPause(now.Boot)
	return now
}

// readEntry is Execute for a METAGET. An answer to another sidecar must not delay others: a long value goes the
// slow way.
func (ss *Session) readEntry(conn *server.Conn) bool {
	q := ss.Req
	if n := ss.Core.Copied(q, &ss.Names); n > SmallValue {
		if ss.from.Node != "" {
			return false
		}
		ss.Names.Release()
		if err := Busy(conn.Grow(n+AnswerSlack, true)); err != nil { // it may wait: nothing is copied yet
			ss.Refuse(err)
			return true
		}
	}
	if ss.Core.ExecuteTo(q, &ss.Names, ss.Moment(conn), 0, &ss.Reply); ss.Reply.Status == wire.Moved {
		return false
	}
	if n := len(ss.Reply.Value); n > SmallValue { // mostly there is room: the value may have grown just now
		if err := ss.room(conn, n); err != nil {
			if q.OnlyReads() {
				ss.Refuse(err)
			} else { // it was done, and BUSY would say that it was not: no answer goes
				conn.Kill()
			}
			return true
		}
	}
	ss.Count(q, &ss.Reply)
	return true
}

// room makes room behind Out for n bytes of an answer that has begun. It may wait for a turn to copy
// many bytes, and holds no namespace meanwhile.
func (ss *Session) room(conn *server.Conn, n int) *wire.Error {
	if n += AnswerSlack; len(conn.Out)+n >= quota.LongCopy {
		ss.Names.Release()
	}
	return Busy(conn.Grow(n, false))
}

// Limit gives the present request its end, if it is a write.
func (ss *Session) Limit(conn *server.Conn) {
	q := ss.Req
	ss.Core.Deadlines.Limit(q, ss.Now.Boot+ss.Core.Deadlines.Timeout(q))
	if conn.Waited() && !ss.Quiet {
		q.Conn = conn.End()
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
func (tally *Tally) Add(ns *namespaces.Namespace, op wire.Op, o namespaces.Outcome) {
	if tally.ns != ns || tally.op != op {
		tally.Flush()
		tally.ns, tally.op = ns, op
	}
	tally.n[o]++
}

// Flush adds the counts to those that all connections share.
func (tally *Tally) Flush() {
	for o, n := range tally.n {
		switch {
		case n == 0:
			continue
		case tally.served != nil:
			tally.served.Add(n)
		default:
			tally.ns.Counts[tally.op][o].Add(n)
		}
		tally.n[o] = 0
	}
}
