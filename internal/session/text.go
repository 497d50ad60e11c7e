package session

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"

	"github.com/cachesidecar/cachesidecar/internal/memcached"
	"github.com/cachesidecar/cachesidecar/internal/places"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// Text is a session that speaks memcached's protocol. It turns each command into requests of
// the socket's protocol, which the Session serves, and their replies into memcached's
// answers (see form). The connection keeps the answers in the order of the commands.
//
//	one command                      becomes
//	get k                            GET
//	get k1 k2 …                      each key in place; from the first that must wait on, MGETs
//	gat t k1 k2 …                    a METAGET for each key
//	set, add, replace, cas, ms …     SET
//	delete, md                       DELETE
//	incr, decr, ma                   INCR
//	mg                               GET, and METAGET if that does not answer it
//	flush_all                        FLUSH, after all commands before it
type Text struct {
	*Session
	text *text
}

// text is what a session has if it speaks memcached's protocol.
type text struct {
	door *TextDoor
	form textForm // of the present request
	late bool     // the first command has come
	n    textTally
	*textWork
}

// textWork is the memory that a Text needs while it serves a batch.
type textWork struct {
	cmds [rpc.MaxServe]memcached.Command
	keys [][]byte // of a get that goes the slow way
}

var textWorks = sync.Pool{New: func() any { return new(textWork) }}

// Text returns the session of a connection that speaks memcached's protocol.
func (d *Doors) Text(nc net.Conn, door *TextDoor) (rpc.Handler, error) {
	owner, process := "memcached", ""
	c := d.Of(d.cfg.Engine.Access.Memcached(), nil)
	if nc.LocalAddr().Network() == "unix" {
		app, err := unixsock.PeerOf(nc)
		if err != nil {
			return nil, err
		}
		owner, process = places.UserOwner(app.UID), fmt.Sprint("pid ", app.PID)
		c.about = []any{"pid", app.PID, "uid", app.UID, "gid", app.GID}
	} else {
		c.about = []any{"from", nc.RemoteAddr().String()}
	}
	c.about = append(c.about, "protocol", "memcached")
	c.member, c.process = d.cfg.Engine.Shares.Join(owner), process
	c.Names.Member = c.member
	c.Namespace = door.Namespace
	if err := c.member.Acquire(places.Connections); err != nil {
		c.member.Leave()
		return nil, err
	}
	c.text = &text{door: door}
	c.log(slog.LevelDebug, "connection opened")
	return &Text{c, c.text}, nil
}

// Batch begins a batch.
func (t *Text) Batch() {
	t.Session.Batch()
	t.text.textWork = textWorks.Get().(*textWork)
}

// Served gives back what the batch has borrowed.
func (t *Text) Served() {
	t.text.n.flush(&t.text.door.counts)
	textWorks.Put(t.text.textWork)
	t.text.textWork = nil
	t.Session.Served()
}

// errHTTP ends a connection whose client takes it for a web server: a page in a browser must
// not be able to send commands.
var errHTTP = errors.New("the client speaks HTTP")

// Serve answers the commands of a batch: it parses them all, looks ahead in the store, and
// then serves them in their order.
func (t *Text) Serve(conn *rpc.Conn, frames [][]byte) error {
	c := t.Session
	defer c.tally.flush()
	keys, writes := 0, 0
	for i, frame := range frames {
		cmd := &t.text.cmds[i]
		if memcached.Parse(frame, cmd); cmd.Verb == memcached.Bad && (cmd.HTTP || t.isFirst(frame)) {
			return errHTTP
		}
		if len(frames) < warmFrom || cmd.Key == nil {
			continue
		}
		namespace, key := t.text.door.split(cmd.Key)
		if ns := c.Names.Read(namespace); ns != nil {
			c.hashes[keys] = ns.Hash(key)
			if keys++; cmd.Value != nil {
				writes++
			}
		}
	}
	c.lookAhead(keys, writes)
	for i := range frames {
		cmd := &t.text.cmds[i]
		c.req, t.text.form = &c.reqs[i], textForm{Form: &cmd.Form}
		if cmd.Verb == memcached.Quit {
			return io.EOF
		}
		t.serve(conn, cmd)
		if len(conn.Out) > flushAt && !conn.Flush() {
			return nil // the connection ends by itself
		}
	}
	return nil
}

// isFirst says whether a line is the first one of its connection and looks like HTTP.
func (t *Text) isFirst(frame []byte) bool {
	first := !t.text.late
	t.text.late = true
	return first && memcached.IsHTTP(frame)
}

// Oversized answers what cannot be a command. The connection is closed.
func (t *Text) Oversized(conn *rpc.Conn, _ []byte, _ int, why error) {
	if errors.Is(why, memcached.ErrLongLine) {
		conn.Out = append(conn.Out, "CLIENT_ERROR line too long\r\n"...)
	}
}

// serve answers one command.
func (t *Text) serve(conn *rpc.Conn, cmd *memcached.Command) {
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
	case memcached.Version:
		conn.Out = append(conn.Out, versionAnswer...)
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

// versionAnswer names the version of memcached whose protocol this is: clients decide by it
// what they may send.
const versionAnswer = "VERSION 1.6.18-cachesidecar\r\n"

// refused answers a line that is no valid command.
func (t *Text) refused(conn *rpc.Conn, cmd *memcached.Command) {
	if cmd.TooLong {
		// The value that is there is not what the client wants there any more.
		t.text.form.Form = &unsaid
		t.begin(wire.OpDelete, cmd.Key)
		t.run(conn)
	}
	if cmd.Error == memcached.TooLarge {
		t.text.door.counts[storeTooLarge].Add(1)
	}
	conn.Out = cmd.Form.AppendLine(conn.Out, cmd.Error)
}

// unsaid is the form of a deletion that no client has asked for: it is neither answered nor counted.
var unsaid = memcached.Form{Verb: memcached.Bad, Quiet: true}

// begin begins the present request, of a key as the client names it.
func (t *Text) begin(op wire.Op, key []byte) *wire.Request {
	q := t.req
	keys := q.Keys[:0]
	*q = wire.Request{} // in place: a literal with fields would be copied
	q.Op, q.TTLMS, q.App = op, wire.TTLDefault, true
	q.Namespace, q.Key = t.text.door.split(key)
	if q.Keys = keys; op == wire.OpDelete {
		q.Keys, q.Key = append(keys, q.Key), nil
	}
	return q
}

// run serves the present request in place, or later.
func (t *Text) run(conn *rpc.Conn) {
	c := t.Session
	q := c.req
	if err := c.Refusal(q); err != nil {
		c.answerError(conn, err)
		return
	}
	c.Core.Deadlines.Limit(q, c.now.Boot+c.Core.Deadlines.Timeout(q))
	switch {
	case c.order.has(c.keys()), q.Op == wire.OpDelete && !c.Core.Owners.OwnsAll(c.keys()):
		c.later(conn)
	default:
		c.execute(conn)
	}
}
