package session

import (
	"slices"
	"sync"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// MaxDescriptors bounds the descriptors of shared memory that were sent and not received. The
// system refuses to send one above the limit of open files, to any app.
const MaxDescriptors = 512

var errNoMemory = wire.Errorf(wire.Unsupported,
	"this sidecar shares no memory with apps: see shared_size, or read over the socket")

// share answers SHARED: the descriptor of the region goes with the answer.
func (c *Handler) share(conn *server.Conn) {
	if !c.Core.Regions.Offered() {
		c.answerError(conn, errNoMemory)
		return
	}
	c.brief = true
	c.Names.Release() // to make a region takes long
	c.Sessions.descriptors.sweep()
	if err := c.account.Acquire(quota.Descriptors); err != nil {
		c.answerError(conn, err)
		return
	}
	file, body, bad := c.Core.Regions.OpenRegion(c.By.Principal())
	if bad != nil {
		c.account.Release(quota.Descriptors)
		c.answerError(conn, bad)
		return
	}
	defer file.Close()
	body.NowNS = uint64(c.Core.Clock.Read().Boot)
	c.Reply = wire.BodyReply(body)
	c.Reply.ID = c.Req.ID
	p, err := conn.Pass(wire.AppendReply(nil, c.Req.Op, &c.Reply), file)
	if p == nil {
		c.account.Release(quota.Descriptors)
	} else {
		c.passed = c.Sessions.descriptors.add(c.account, p)
	}
	if err != nil {
		c.answerError(conn, wire.Errorf(wire.Busy, "%v: ask on a connection of its own", err))
	}
}

// descriptors are those that were sent, of all connections, until they have been received.
// Each has a place of its user.
type descriptors struct {
	mu   sync.Mutex
	list []*descriptor // at most MaxDescriptors
}

type descriptor struct {
	*server.Passed
	account *quota.Account
}

func (l *descriptors) add(a *quota.Account, p *server.Passed) *descriptor {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, &descriptor{p, a})
	return l.list[len(l.list)-1]
}

// sweep gives up what has been received.
func (l *descriptors) sweep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = slices.DeleteFunc(l.list, func(p *descriptor) bool {
		received := p.Received()
		if received {
			p.End()
			p.account.Release(quota.Descriptors)
		}
		return received
	})
}

// closed is told that the connection of a descriptor has been closed. A descriptor that has not
// been received keeps its place until its app receives it, or closes its end.
func (l *descriptors) closed(p *descriptor) {
	if p == nil {
		return
	}
	l.sweep()
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Contains(l.list, p) {
		p.Leave()
	}
}

// Close ends what the sessions have left, after the last of them.
func (d *Sessions) Close() {
	l := &d.descriptors
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.list {
		p.End()
		p.account.Release(quota.Descriptors)
	}
	l.list = nil
}

// regionOf returns the shared memory that the app of a read has, if the request asks for values
// there; nil: none.
func regionOf(c *Handler, q *wire.Request) any {
	if !q.App || !q.Has(wire.Share) {
		return nil
	}
	return c.Core.Regions.RegionOf(c.By.Principal())
}

// hits counts reads that an app has answered itself.
func (c *Handler) hits(conn *server.Conn) {
	c.Core.Local.Reported(c.Req, &c.Names, c.Now)
	if !c.Req.Has(wire.Quiet) {
		c.Reply = wire.Reply{}
		c.appendReply(conn)
	}
}
