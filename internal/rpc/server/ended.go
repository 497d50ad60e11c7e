package server

// End is the end of a connection, for requests that wait: see EndOf.
type End Conn

// EndOf returns the end of a connection.
func EndOf(c *Conn) *End { return (*End)(c) }

// Ended says whether the connection's client has gone, or this host has ended the connection:
// no answer can come to the client any more. It asks the operating system, since the reader
// may have had no time yet to find out. A client that only sends nothing more has not gone.
// Over TCP a client that has closed its connection looks like that one, until it refuses an
// answer. Any goroutine may call Ended, also after the connection has been closed.
func (e *End) Ended() bool {
	return e.socket.Killed() || e.outbox.failure() != nil || e.socket.HungUp()
}

// Waited says whether the reader of a connection has had to wait since it has read the
// requests at hand. Only the reader calls it.
func Waited(c *Conn) bool { return c.outbox.waited }

// Lost says whether an answer of a connection could not be written. Nothing more is served then.
// Only the reader calls it.
func Lost(c *Conn) bool { return c.lost != nil }
