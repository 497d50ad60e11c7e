package session

import (
	"github.com/cachesidecar/cachesidecar/internal/memcached"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
)

// A write that still waits when its connection has ended is not executed: its client may have
// written the key again over another connection, or another client may have. A write waits as
// a Pending, or in a batch whose reader has had to wait. A write that its reader answers at once
// is executed even if its client has gone already, and so is one without an answer.

// limit gives the present request of a session its end, if it is a write.
func limit(c *Session, conn *server.Conn) {
	q := c.req
	c.Core.Deadlines.Limit(q, c.now.Boot+c.Core.Deadlines.Timeout(q))
	if server.Waited(conn) && !c.text.quiet() {
		q.Conn = server.EndOf(conn)
	}
}

// quiet says whether the client wants no answer to the present request. Of an mg the flag q
// keeps back only the answer that there is nothing.
func (t *text) quiet() bool {
	return t != nil && t.form.Quiet && t.form.Verb != memcached.MetaGet
}
