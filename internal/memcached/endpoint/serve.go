package endpoint

import (
	"errors"
	"io"

	"github.com/cachesidecar/cachesidecar/internal/memcached"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/session"
)

// Batch begins a batch.
func (t *handler) Batch() {
	t.Session.Batch()
	t.work = works.Get().(*work)
}

// Served gives back what the batch has borrowed.
func (t *handler) Served() {
	works.Put(t.work)
	t.work = nil
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
func (t *handler) Serve(conn *server.Conn, frames [][]byte) error {
	c := t.Session
	defer c.Tally.Flush() // before the answers go: a client with an answer finds it counted
	defer t.n.flush(&t.door.counts)
	keys, writes := 0, 0
	for i, frame := range frames {
		cmd := &t.cmds[i]
		memcached.Parse(frame, cmd)
		switch first := !t.late; {
		case cmd.HTTP, first && memcached.IsHTTP(frame):
			return errHTTP // whatever command the line could be too
		case first && cmd.Unknown:
			conn.Out = append(conn.Out, "ERROR\r\n"...)
			return errUnknown
		}
		t.late = true
		if len(frames) < session.WarmFrom || cmd.Key == nil {
			continue
		}
		namespace, key, ok := t.door.split(cmd.Key)
		if ns := c.Names.Read(namespace); ok && ns != nil {
			c.Hashes[keys] = ns.Hash(key)
			if keys++; cmd.Value != nil {
				writes++
			}
		}
	}
	c.LookAhead(keys, writes)
	t.commands = len(frames)
	defer t.giveUp()
	for i := range frames {
		cmd := &t.cmds[i]
		t.at = i
		t.present(i)
		if cmd.Verb == memcached.Quit {
			return io.EOF
		}
		if a := t.begun[i]; a != nil {
			t.begun[i] = nil
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
func (t *handler) present(i int) {
	f := &t.cmds[i].Form
	t.Req, t.form = &t.Reqs[i], form{Form: f}
	t.Quiet = f.Quiet && f.Verb != memcached.MetaGet // whose q keeps back only that there is nothing
}

// Oversized answers what cannot be a command. The connection is closed.
func (t *handler) Oversized(conn *server.Conn, _ []byte, _ int, why error) {
	if errors.Is(why, memcached.ErrLongLine) {
		conn.Out = append(conn.Out, "CLIENT_ERROR line too long\r\n"...)
	}
}

// serve answers one command.
func (t *handler) serve(conn *server.Conn, cmd *memcached.Command) {
	c := t.Session
	switch cmd.Verb {
	case memcached.Bad:
		t.bad(conn, cmd)
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
		conn.Out = append(conn.Out, "VERSION "+version+"\r\n"...)
	case memcached.Verbosity:
		conn.Out = cmd.Form.AppendLine(conn.Out, "OK")
	case memcached.Stats:
		c.Tally.Flush()
		t.n.flush(&t.door.counts)
		conn.Out = t.door.appendStats(conn.Out, string(cmd.Sub))
	case memcached.FlushAll:
		t.flushAll(conn, cmd)
	default:
		t.write(conn, cmd)
	}
}

// version is the version of memcached whose protocol this is: clients decide by it what they may
// send. Some read numbers alone, and end their process at anything else.
const version = "1.6.18"

// bad answers a line that is no valid command.
func (t *handler) bad(conn *server.Conn, cmd *memcached.Command) {
	if cmd.TooLong {
		// The value that is there is not what the client wants there any more.
		t.drop(conn, cmd.Key)
	}
	if cmd.Error == memcached.TooLarge {
		t.n[storeTooLarge]++
	}
	conn.Out = cmd.Form.AppendLine(conn.Out, cmd.Error)
}

// drop removes a key without an answer, and without counting it: the client has sent no
// delete.
func (t *handler) drop(conn *server.Conn, key []byte) {
	was, quiet := t.form, t.Quiet
	t.form, t.Quiet = form{Form: &noAnswer}, true
	t.remove(key)
	t.run(conn)
	t.form, t.Quiet = was, quiet
}

// noAnswer is the form of a request of ours: see drop.
var noAnswer = memcached.Form{Verb: memcached.Bad, Quiet: true}
