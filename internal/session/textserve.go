package session

import (
	"errors"
	"io"

	"github.com/cachesidecar/cachesidecar/internal/memcached"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
)

// Batch begins a batch.
func (t *Text) Batch() {
	t.Session.Batch()
	t.text.textWork = textWorks.Get().(*textWork)
}

// Served gives back what the batch has borrowed.
func (t *Text) Served() {
	textWorks.Put(t.text.textWork)
	t.text.textWork = nil
	t.Session.Served()
}

// Errors that end a connection whose client takes it for another server. What follows may be
// commands that a stranger has chosen: a page in a browser, or its server by a ticket of TLS.
var (
	errHTTP    = errors.New("the client speaks HTTP, or a protocol like it")
	errUnknown = errors.New("the first line is no command of memcached's text protocol")
)

// Serve answers the commands of a batch: it parses them all, looks ahead in the store, and
// then serves them in their order.
func (t *Text) Serve(conn *server.Conn, frames [][]byte) error {
	c := t.Session
	defer c.tally.flush() // before the answers go: a client with an answer finds it counted
	defer t.text.n.flush(&t.text.door.counts)
	keys, writes := 0, 0
	for i, frame := range frames {
		cmd := &t.text.cmds[i]
		memcached.Parse(frame, cmd)
		switch first := !t.text.late; {
		case cmd.HTTP, first && memcached.IsHTTP(frame):
			return errHTTP // whatever command the line could be too
		case first && cmd.Unknown:
			conn.Out = append(conn.Out, "ERROR\r\n"...)
			return errUnknown
		}
		t.text.late = true
		if len(frames) < warmFrom || cmd.Key == nil {
			continue
		}
		namespace, key, ok := t.text.door.split(cmd.Key)
		if ns := c.Names.Read(namespace); ok && ns != nil {
			c.hashes[keys] = ns.Hash(key)
			if keys++; cmd.Value != nil {
				writes++
			}
		}
	}
	c.lookAhead(keys, writes)
	t.text.commands = len(frames)
	defer t.giveUp()
	for i := range frames {
		cmd := &t.text.cmds[i]
		t.text.at = i
		t.present(i)
		if cmd.Verb == memcached.Quit {
			return io.EOF
		}
		if a := t.text.begun[i]; a != nil {
			t.text.begun[i] = nil
			t.finish(conn, a)
		} else {
			t.serve(conn, cmd)
		}
		if !t.flush(conn) {
			return nil // the connection ends by itself
		}
	}
	return nil
}

// present makes a command of the batch the present one.
func (t *Text) present(i int) { t.req, t.text.form = &t.reqs[i], textForm{Form: &t.text.cmds[i].Form} }

// Oversized answers what cannot be a command. The connection is closed.
func (t *Text) Oversized(conn *server.Conn, _ []byte, _ int, why error) {
	if errors.Is(why, memcached.ErrLongLine) {
		conn.Out = append(conn.Out, "CLIENT_ERROR line too long\r\n"...)
	}
}

// serve answers one command.
func (t *Text) serve(conn *server.Conn, cmd *memcached.Command) {
	c := t.Session
	switch cmd.Verb {
	case memcached.Bad:
		t.refused(conn, cmd)
	case memcached.Get, memcached.Gets:
		t.get(conn, cmd)
	case memcached.Gat, memcached.Gats:
		t.gat(conn, cmd)
	case memcached.MetaGet, memcached.MetaDebug:
		t.metaGet(conn, cmd)
	case memcached.MetaNoop:
		conn.Out = append(conn.Out, "MN\r\n"...)
	case memcached.Dump:
		conn.Out = append(conn.Out, memcached.End...)
	case memcached.Version:
		conn.Out = append(conn.Out, "VERSION "+textVersion+"\r\n"...)
	case memcached.Verbosity:
		conn.Out = cmd.Form.AppendLine(conn.Out, "OK")
	case memcached.Stats:
		c.tally.flush()
		t.text.n.flush(&t.text.door.counts)
		conn.Out = t.text.door.appendStats(conn.Out, c.d, string(cmd.Sub))
	case memcached.FlushAll:
		t.flushAll(conn, cmd)
	default:
		t.write(conn, cmd)
	}
}

// textVersion is the version of memcached whose protocol this is: clients decide by it what they may
// send. Some read numbers alone, and end their process at anything else.
const textVersion = "1.6.18"

// refused answers a line that is no valid command.
func (t *Text) refused(conn *server.Conn, cmd *memcached.Command) {
	if cmd.TooLong {
		// The value that is there is not what the client wants there any more.
		t.drop(conn, cmd.Key)
	}
	if cmd.Error == memcached.TooLarge {
		t.text.n[storeTooLarge]++
	}
	conn.Out = cmd.Form.AppendLine(conn.Out, cmd.Error)
}

// drop removes a key without an answer, and without counting it: the client has sent no
// delete.
func (t *Text) drop(conn *server.Conn, key []byte) {
	form := t.text.form
	t.text.form = textForm{Form: &noAnswer}
	t.remove(key)
	t.run(conn)
	t.text.form = form
}

// noAnswer is the form of a request of ours: see drop.
var noAnswer = memcached.Form{Verb: memcached.Bad, Quiet: true}
