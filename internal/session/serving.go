package session

import (
	"log/slog"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/verify"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

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
	c.d.passing.closed(c.passed)
	if c.from.Node == "" {
		c.member.Release(quota.Connections)
	}
	c.member.Leave()
	if err != nil && !c.brief {
		c.log(slog.LevelWarn, "connection closed", "reason", err)
	} else {
		c.log(slog.LevelDebug, "connection closed")
	}
}

// Oversized answers a frame that cannot be taken.
func (c *Session) Oversized(conn *server.Conn, beginning []byte, length int, why error) {
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
func (c *Session) Serve(conn *server.Conn, frames [][]byte) error {
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
		if len(conn.Out) > flushAt && !conn.Flush() || server.Lost(conn) {
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

// forApps are the operations that need a caller with rights, or that concern an app's
// connection. No sidecar asks another one for them.
var forApps = [wire.OpCount]bool{
	wire.OpHello: true, wire.OpWatch: true, wire.OpKeys: true, wire.OpHot: true, wire.OpSlow: true,
	wire.OpReload: true, wire.OpDrain: true, wire.OpLeaving: true, wire.OpShared: true, wire.OpHits: true,
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
func (c *Session) serve(conn *server.Conn) {
	q := c.req
	if err := c.check(q); err != nil {
		c.answerError(conn, err)
		return
	}
	q.Region = regionOf(c, q)
	limit(c, conn)
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
	case wire.OpMetaGet:
		if !c.metaGet(conn) {
			c.later(conn)
		}
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
	case wire.OpPull, wire.OpFetch, wire.OpProbe, wire.OpApplied:
		c.ofPeers(conn)
	default:
		if asksOthers(c, q) {
			c.later(conn)
			return
		}
		c.execute(conn)
	}
}

// asksOthers says whether a request that this host executes asks other hosts too.
func asksOthers(c *Session, q *wire.Request) bool {
	switch q.Op {
	case wire.OpForget:
		return c.from.Node == ""
	case wire.OpFlush, wire.OpRing:
		return q.App && !c.Core.Node.Alone() && (q.Op == wire.OpRing || q.Has(wire.Cluster))
	}
	return false
}

// execute answers c.req from what this host has, or later.
func (c *Session) execute(conn *server.Conn) {
	if q := c.req; q.Op == wire.OpFill || q.Op == wire.OpSet && q.Mode != wire.ModeSet {
		switch n := c.Core.Copied(q, &c.Names); {
		case n <= smallValue:
		case n >= quota.LongCopy && c.from.Node != "":
			c.later(conn) // it must not delay the requests of other apps of that host
			return
		default:
			if err := noRoom(server.Turn(conn, n)); err != nil {
				c.answerError(conn, err)
				return
			}
			defer server.EndTurn(conn, n)
			limit(c, conn)
		}
	}
	if c.Core.ExecuteTo(c.req, &c.Names, moment(c, conn), 0, &c.reply); c.reply.Status == wire.Moved {
		c.later(conn)
		return
	}
	c.count(c.req, &c.reply)
	c.given(c.req, &c.reply)
	c.answer(conn)
}
