package session

import (
	"context"
	"log/slog"
	"sync"
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

// Session executes the requests of one connection, whatever its protocol: Handler speaks the socket's,
// package endpoint memcached's. All of it belongs to the connection's reader.
type Session struct {
	Doors *Doors
	Core  *engine.Engine
	By    access.Caller   // the app at the other end
	Names namespaces.Pins // for one batch
	Now   kv.Moment       // of the batch
	Tally Tally
	Quiet bool // the client wants no answer to the present request

	from    kv.Process // another sidecar; zero: an app
	about   []any      // the peer, for the log
	told    bool       // a refusal has been logged
	batches uint32
	// slow answers what cannot be answered in place.
	slow    func(ctx context.Context, q *wire.Request, b *namespaces.Pins, deadline time.Duration) wire.Reply
	member  *quota.Member // of the host's shares; nil: this process itself
	process string        // at the other end

	ctx, reading context.Context // of requests that wait; reading also ends with the connection; nil before the first

	*Work // nil between batches
}

// Work is the memory that a session needs while it serves a batch; an idle one has none.
type Work struct {
	Req    *wire.Request // the present request
	Reply  wire.Reply
	Reqs   [server.MaxServe]wire.Request
	Hashes [server.MaxServe]kv.Hash // for LookAhead
	errs   [server.MaxServe]*wire.Error
	own    []kv.Hash // see Handler.keys
	sum    uint64    // of Store.Warm and Changes.Warm
}

var works = sync.Pool{New: func() any { return new(Work) }}

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
		c.Core.Counts.Served.Add(int64(namespaces.KeysIn(q)))
	}
}

// Refuse makes the reply to the present request an error, and counts it.
func (c *Session) Refuse(err *wire.Error) {
	c.Reply = wire.ErrorReply(err)
	c.Tally.Add(c.Core.Names.None, c.Req.Op, namespaces.Failed)
}

// NoRoom returns the error of a request for which there is no memory.
func NoRoom(err error) *wire.Error {
	if err == nil {
		return nil
	}
	return wire.Errorf(wire.Busy, "%v", err)
}

// Batch reads the clock, once for all requests that came in one read.
func (c *Session) Batch() {
	c.Now = c.Core.Clock.Read()
	c.Core.Node.CheckPause(c.Now.Boot)
	c.Work = works.Get().(*Work)
}

// Served gives back what the batch has borrowed.
func (c *Session) Served() {
	c.Names.Release()
	works.Put(c.Work)
	c.Work = nil
	if c.batches++; c.batches%batchSample == 0 {
		took := c.Core.Clock.Read().Boot - c.Now.Boot
		c.Doors.Host.Batch(took)
	}
}

// batchSample: one batch in batchSample is timed.
const batchSample = 16

// Gone is told that no more requests come.
func (c *Session) Gone() {}

// Close ends the session.
func (c *Session) Close(err error) {
	if c.from.Node == "" {
		c.member.Release(quota.Connections)
	}
	c.member.Leave()
	if err != nil {
		c.LogLine(slog.LevelWarn, "connection closed", "reason", err)
	} else {
		c.LogLine(slog.LevelDebug, "connection closed")
	}
}

// Owner returns the owner of the connection and the process at its other end.
func (c *Session) Owner() (owner, process string) {
	if c.member == nil {
		return "", ""
	}
	return c.member.Owner(), c.process
}

// Refusal returns why a request is refused, or nil if it may be served.
func (c *Session) Refusal(q *wire.Request) *wire.Error {
	err, missing := c.By.Refusal(q)
	if err != nil && !c.told {
		c.told = true
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
	Memory    Memory               // that apps share; nil: none
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

// Doors makes the sessions of a host.
type Doors struct {
	Config
	farewell farewell
	passing  passing
}

// New returns the Doors of a host.
func New(cfg Config) *Doors { return &Doors{Config: cfg} }

// session returns the session of a caller.
func (d *Doors) session(by access.Caller, m *quota.Member) *Session {
	return &Session{
		Doors: d, Core: d.Engine, By: by, member: m, Names: namespaces.Pins{Table: d.Engine.Names, Member: m},
		slow: d.Host.Serve,
	}
}

// Join returns the session of a connection, which takes a place of its owner's, as quota.UserOwner
// names it. The log names the client by about.
func (d *Doors) Join(by access.Caller, owner, process string, about ...any) (*Session, error) {
	c := d.session(by, d.Engine.Shares.Join(owner))
	c.process, c.about = process, about
	if err := c.member.Acquire(quota.Connections); err != nil {
		c.member.Leave()
		return nil, err
	}
	c.LogLine(slog.LevelDebug, "connection opened")
	return c, nil
}
