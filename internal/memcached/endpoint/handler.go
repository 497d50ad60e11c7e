package endpoint

import (
	"fmt"
	"net"
	"sync"

	"github.com/cachesidecar/cachesidecar/internal/memcached"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/session"
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
	door *Door
	form form // of the present request
	// refused is why the key of the present request is refused; nil: it has a namespace.
	refused *wire.Error

	late     bool // the first command has come
	commands int  // of the batch
	at       int  // the command that is answered
	n        tally
	*work
}

// work is the memory that a handler needs while it serves a batch.
type work struct {
	cmds  [server.MaxServe]memcached.Command
	begun [server.MaxServe]*delayed // see askAhead; nil: not begun, or answered
}

var works = sync.Pool{New: func() any { return new(work) }}

// Handler returns the handler of a new connection.
func (d *Door) Handler(nc net.Conn) (server.Handler, error) {
	by, owner, process := d.Sessions.Engine.Access.Memcached(), "memcached", ""
	about := []any{"from", nc.RemoteAddr().String()}
	if nc.LocalAddr().Network() == "unix" {
		app, err := unixsock.PeerOf(nc)
		if err != nil {
			return nil, err
		}
		owner, process = quota.UserOwner(app.UID), fmt.Sprint("pid ", app.PID)
		about = []any{"pid", app.PID, "uid", app.UID, "gid", app.GID}
	}
	c, err := d.Sessions.Join(by, owner, process, append(about, "protocol", "memcached")...)
	if err != nil {
		return nil, err
	}
	return &handler{Session: c, door: d}, nil
}

// begin begins the present request, of a key as the client names it.
func (t *handler) begin(op wire.Op, key []byte) *wire.Request {
	q := t.Req
	keys := q.Keys[:0]
	*q = wire.Request{} // in place: a literal with fields would be copied
	q.Op, q.TTLMS, q.App = op, wire.TTLDefault, true
	var ok bool
	if q.Namespace, q.Key, ok = t.door.split(key); ok {
		t.refused = nil
	} else {
		t.refused = t.door.refuse(key)
	}
	if q.Keys = keys; op == wire.OpDelete {
		q.Keys, q.Key = append(keys, q.Key), nil
	}
	return q
}

// refusal returns why the present request, which begin has begun, is refused, or nil.
func (t *handler) refusal() *wire.Error {
	if t.refused != nil {
		return t.refused
	}
	return t.Refusal(t.Req)
}

// run serves the present request in place, or has the reader wait for it.
func (t *handler) run(conn *server.Conn) {
	q := t.Req
	if err := t.refusal(); err != nil {
		t.refuse(conn, err)
		return
	}
	t.Limit(conn)
	serve := t.Execute
	if q.Op == wire.OpMetaGet { // its value may be long
		serve = t.MetaGet
	}
	t.answerOr(conn, serve(conn))
}

// answerOr answers the present request if it has been served, and else waits for it.
func (t *handler) answerOr(conn *server.Conn, served bool) {
	if served {
		t.answer(conn)
	} else {
		t.wait(conn)
	}
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
	ms, over := memcached.TTL(exptime, t.Now.Wall, wire.MaxTTL)
	if over {
		return 1
	}
	return ms
}
