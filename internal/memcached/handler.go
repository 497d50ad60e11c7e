package memcached

import (
	"errors"
	"io"
	"net"
	"sync"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// handler serves the connection of a client of memcached's protocol. It turns each command into
// requests of the socket's protocol, which the Session serves, and their replies into memcached's
// answers (see form). A command that must wait has the reader wait: see wait.go.
//
//	one command                      becomes
//	get k                            GET
//	get k1 k2 …                      each key in place; from the first that must wait on, MGETs
//	gat t k1 k2 …                    a METAGET for each key
//	set, add, replace, cas, ms …     SET
//	delete, md                       DELETE
//	a value that is over at once     DELETE from the cache alone
//	incr, decr, ma                   INCR
//	mg                               GET, and METAGET if that does not answer it
//	flush_all                        FLUSH
type handler struct {
	*session.Session
	endpoint *Endpoint
	form     *form       // of the present command
	nameless *wire.Error // why the key of the present request has no namespace; nil: it has one

	hadCommand bool // the first command has come
	commands   int  // of the batch
	at         int  // the command that is answered
	n          tally
	*work
}

// work is the memory that a handler needs while it serves a batch.
type work struct {
	cmds  [server.MaxFrames]command
	begun [server.MaxFrames]*delayed // see askAhead; nil: not begun, or answered
}

var works = sync.Pool{New: func() any { return new(work) }}

// Handler returns the handler of a new connection. All clients have the same rights. Of the shares each user has
// its own, and all users over TCP whom the system does not tell have one.
func (d *Endpoint) Handler(nc net.Conn) (server.Handler, error) {
	by, app := d.Sessions.Engine.Access.Memcached(), quota.App{User: quota.Nobody}
	about := []any{"from", nc.RemoteAddr().String()}
	if nc.LocalAddr().Network() == "unix" {
		peer, err := unixsock.PeerOf(nc)
		if err != nil {
			return nil, err
		}
		app = quota.App{User: peer.UID, Process: peer.PID}
		about = []any{"pid", peer.PID, "uid", peer.UID, "gid", peer.GID}
	} else if uid, ok := transport.UserOf(nc); ok {
		app.User, about = uid, append(about, "uid", uid)
	}
	c, err := d.Sessions.Join(by, app, append(about, "protocol", "memcached")...)
	if err != nil {
		return nil, err
	}
	return &handler{Session: c, endpoint: d}, nil
}

// beginRequest begins the present request, of a key as the client names it.
func (t *handler) beginRequest(op wire.Op, key []byte) *wire.Request {
	q := t.Req
	keys := q.Keys[:0]
	*q = wire.Request{} // in place: a literal with fields would be copied
	q.Op, q.TTLMS, q.App = op, wire.TTLDefault, true
	q.By = t.App
	var ok bool
	if q.Namespace, q.Key, ok = t.endpoint.split(key); ok {
		t.nameless = nil
	} else {
		t.nameless = t.endpoint.refuse(key)
	}
	if q.Keys = keys; op == wire.OpDelete {
		q.Keys, q.Key = append(keys, q.Key), nil
	}
	return q
}

// refusal returns why the present request, which begin has begun, is refused, or nil.
func (t *handler) refusal() *wire.Error {
	if t.nameless != nil {
		return t.nameless
	}
	return t.Refusal(t.Req)
}

// refused answers the present request with an error if it is refused.
func (t *handler) refused(conn *server.Conn) bool {
	err := t.refusal()
	if err != nil {
		t.form.part = false
		t.refuse(conn, err)
	}
	return err != nil
}

// run serves the present request in place, or has the reader wait for it. It returns false if the request
// is refused.
func (t *handler) run(conn *server.Conn) bool {
	if t.refused(conn) {
		return false
	}
	t.Limit(conn)
	if t.Execute(conn) {
		t.answer(conn)
	} else {
		t.wait(conn)
	}
	return true
}

// answer appends the answer to the present request.
func (t *handler) answer(conn *server.Conn) {
	conn.Out = t.form.append(conn.Out, &t.n, t.Req, &t.Reply)
}

// refuse answers the present request with an error.
func (t *handler) refuse(conn *server.Conn, err *wire.Error) {
	t.Refuse(err)
	t.answer(conn)
}

// ttl returns the TTL of an exptime. One that is over leaves a millisecond: this is for commands
// whose value need not be gone before the next command.
func (t *handler) ttl(exptime int64) (ms int64) {
	ms, over := ttlOf(exptime, t.Now.Wall)
	if over {
		return 1
	}
	return ms
}

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
	defer t.n.flush(&t.endpoint.counts)
	keys, writes := 0, 0
	for i, frame := range frames {
		cmd := &t.cmds[i]
		parse(frame, cmd)
		switch first := !t.hadCommand; {
		case (first || cmd.unknown) && isHTTP(frame):
			return errHTTP // whatever command the line could be too
		case first && cmd.unknown:
			conn.Out = append(conn.Out, "ERROR\r\n"...)
			return errUnknown
		}
		t.hadCommand = true
		if len(frames) < session.WarmFrom || cmd.key == nil {
			continue
		}
		namespace, key, ok := t.endpoint.split(cmd.key)
		if ns := c.Names.Read(namespace); ok && ns != nil {
			c.Hashes[keys] = ns.Hash(key)
			if keys++; cmd.value != nil {
				writes++
			}
		}
	}
	c.LookAhead(keys, writes)
	t.commands = len(frames)
	defer t.giveUp()
	for i := range frames {
		cmd := &t.cmds[i]
		t.present(i)
		if cmd.verb == verbQuit {
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
	f := &t.cmds[i].form
	t.at, t.Req, t.form = i, &t.Reqs[i], f
	// The q of mg keeps back only that there is nothing, and no client asks for what a failed command does.
	t.Quiet = f.quiet && f.verb != verbMetaGet || f.verb == verbFixed
}

// Oversized answers what cannot be a command. The connection is closed.
func (t *handler) Oversized(conn *server.Conn, _ []byte, _ int, why error) {
	if errors.Is(why, errLongLine) {
		conn.Out = append(conn.Out, "CLIENT_ERROR line too long\r\n"...)
	}
}

// serve answers one command.
func (t *handler) serve(conn *server.Conn, cmd *command) {
	c := t.Session
	switch cmd.verb {
	case verbFixed:
		// The present value is not what the client wants any more: it must go, as in memcached.
		if cmd.line == tooLarge && cmd.mode == wire.ModeSet {
			t.remove(cmd.key)
			t.run(conn)
			return
		}
		t.answer(conn)
	case verbGet, verbGets:
		t.get(conn, cmd)
	case verbGat, verbGats:
		t.gat(conn, cmd)
	case verbMetaGet, verbMetaDebug:
		t.metaGet(conn, cmd)
	case verbStats:
		c.Tally.Flush()
		t.n.flush(&t.endpoint.counts)
		conn.Out = t.endpoint.appendStats(conn.Out, string(cmd.rest))
	case verbFlushAll:
		t.flushAll(conn, cmd)
	default:
		t.write(conn, cmd)
	}
}

// version is the version of memcached whose protocol this is: clients decide by it what they may
// send. Some read numbers alone, and end their process at anything else.
const version = "1.6.18"
