package session

import "github.com/cachesidecar/cachesidecar/internal/rpc/server"

// A write that still waits when its connection has ended is not executed: its client may have
// written the key again over another connection, or another client may have. A write waits as
// a Pending, or in a batch whose reader has had to wait. A write that its reader answers at once
// is executed even if its client has gone already, and so is one without an answer.

// Limit gives the present request its end, if it is a write.
func (c *Session) Limit(conn *server.Conn) {
	q := c.Req
	c.Core.Deadlines.Limit(q, c.Now.Boot+c.Core.Deadlines.Timeout(q))
	if server.Waited(conn) && !c.Quiet {
		q.Conn = server.EndOf(conn)
	}
}
