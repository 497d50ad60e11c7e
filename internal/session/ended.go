package session

import (
	"github.com/cachesidecar/cachesidecar/internal/memcached"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
)

// A write that still waits when its connection has ended is not executed: its client may have
// written the key again over another connection, or another client may have. A write waits as
// a Pending, or in a batch whose reader has had to wait. A write that waits for nothing is
// executed even if its client has gone already, and so is one without an answer.

// limit gives c.req its end, if it is a write.
func (c *Session) limit(conn *rpc.Conn) {
	q := c.req
	c.Core.Deadlines.Limit(q, c.now.Boot+c.Core.Deadlines.Timeout(q))
	if conn.Waited() && c.awaitsAnswer() {
		q.Conn = conn
	}
}

// awaitsAnswer says whether the client waits for an answer to c.req. Of an mg the flag q keeps
// back only the answer that there is nothing.
func (c *Session) awaitsAnswer() bool {
	return c.text == nil || !c.text.form.Quiet || c.text.form.Verb == memcached.MetaGet
}
