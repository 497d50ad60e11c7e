package session

import (
	"os"

	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Memory is the region that apps share.
type Memory interface {
	// Offered reports whether there is one.
	Offered() bool
	// Open opens it for an app. The caller closes the file.
	Open() (*os.File, wire.Shared, error)
}

var errNoMemory = wire.Errorf(wire.Unsupported,
	"this sidecar shares no memory with apps: see shared_size, or read over the socket")

// share answers SHARED: the descriptor of the region goes with the answer.
func (c *Session) share(conn *rpc.Conn) {
	if m := c.d.cfg.Memory; m == nil || !m.Offered() {
		c.answerError(conn, errNoMemory)
		return
	}
	c.brief = true
	file, body, err := c.d.cfg.Memory.Open()
	if err != nil {
		c.answerError(conn, wire.Errorf(wire.Unavailable, "the shared memory: %v", err))
		return
	}
	defer file.Close()
	body.NowNS = uint64(c.Core.Clock.Read().Boot)
	c.reply = wire.BodyReply(body)
	c.reply.ID = c.req.ID
	if err := conn.Pass(wire.AppendReply(nil, c.req.Op, &c.reply), file); err != nil {
		c.answerError(conn, wire.Errorf(wire.Busy, "%v: ask on a connection of its own", err))
	}
}

// hits counts reads that an app has answered itself.
func (c *Session) hits(conn *rpc.Conn) {
	c.Core.Reads.Reported(c.req, &c.Names, c.now)
	if !c.req.Has(wire.Quiet) {
		c.reply = wire.Reply{}
		c.answer(conn)
	}
}
