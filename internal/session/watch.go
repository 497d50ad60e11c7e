package session

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// watch answers WATCH when there is an event, or when its time is over.
func (c *Handler) watch(conn *server.Conn) {
	q := c.Req
	if !q.Has(wire.All) && !kv.ValidNamespace(string(q.Namespace)) {
		c.answerError(conn, namespaces.BadName(q.Namespace))
		return
	}
	if c.watching.Add(1) > engine.MaxConnWatch {
		c.watching.Add(-1)
		c.answerError(conn, wire.Errorf(wire.Busy,
			"%d requests to watch wait on this connection, which is as many as one may have: use one for all",
			engine.MaxConnWatch))
		return
	}
	if err := c.account.Acquire(quota.Watches); err != nil {
		c.watching.Add(-1)
		c.answerError(conn, err)
		return
	}
	leave := func() {
		c.watching.Add(-1)
		c.account.Release(quota.Watches)
	}
	timeout := c.Core.Deadlines.Timeout(q)
	wait := min(time.Duration(q.WaitMS)*time.Millisecond, timeout-engine.AnswerBefore(timeout))
	own, may := q.Clone(), c.By.Principal().MayRead
	if !c.background(conn, func() wire.Reply {
		defer leave()
		return c.Core.Watches.Watched(&own, wait, may)
	}) {
		leave()
	}
}
