package session

import (
	"fmt"
	"log/slog"
	"net"

	"github.com/cachesidecar/cachesidecar/internal/memcached"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// Text is a session that speaks memcached's protocol. It turns each command into requests of
// the socket's protocol, which the Session serves, and their replies into memcached's
// answers (see form). A command that must wait has the reader wait: see textwait.go.
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
type Text struct {
	*Session
	text *text
}

// Text returns the session of a connection that speaks memcached's protocol.
func (d *Doors) Text(nc net.Conn, door *TextDoor) (server.Handler, error) {
	owner, process := "memcached", ""
	c := d.Of(d.cfg.Engine.Access.Memcached(), nil)
	if nc.LocalAddr().Network() == "unix" {
		app, err := unixsock.PeerOf(nc)
		if err != nil {
			return nil, err
		}
		owner, process = quota.UserOwner(app.UID), fmt.Sprint("pid ", app.PID)
		c.about = []any{"pid", app.PID, "uid", app.UID, "gid", app.GID}
	} else {
		c.about = []any{"from", nc.RemoteAddr().String()}
	}
	c.about = append(c.about, "protocol", "memcached")
	c.member, c.process = d.cfg.Engine.Shares.Join(owner), process
	c.Names.Member = c.member
	c.Namespace = door.Namespace
	if err := c.member.Acquire(quota.Connections); err != nil {
		c.member.Leave()
		return nil, err
	}
	c.text = &text{door: door}
	c.log(slog.LevelDebug, "connection opened")
	return &Text{c, c.text}, nil
}

// begin begins the present request, of a key as the client names it.
func (t *Text) begin(op wire.Op, key []byte) *wire.Request {
	q := t.req
	keys := q.Keys[:0]
	*q = wire.Request{} // in place: a literal with fields would be copied
	q.Op, q.TTLMS, q.App = op, wire.TTLDefault, true
	var ok bool
	if q.Namespace, q.Key, ok = t.text.door.split(key); ok {
		t.text.refused = nil
	} else {
		t.text.refused = t.text.door.refuse(key)
	}
	if q.Keys = keys; op == wire.OpDelete {
		q.Keys, q.Key = append(keys, q.Key), nil
	}
	return q
}

// refusal returns why the present request, which begin has begun, is refused, or nil.
func (t *Text) refusal() *wire.Error {
	if t.text.refused != nil {
		return t.text.refused
	}
	return t.Refusal(t.req)
}

// run serves the present request in place, or later.
func (t *Text) run(conn *server.Conn) {
	c := t.Session
	q := c.req
	if err := t.refusal(); err != nil {
		c.answerError(conn, err)
		return
	}
	limit(c, conn)
	if q.Op == wire.OpMetaGet { // its value may be long
		if !c.metaGet(conn) {
			c.later(conn)
		}
		return
	}
	c.execute(conn)
}

// ttl returns the TTL of an exptime. One that is over leaves a millisecond: this is for commands
// whose value need not be gone before the next command.
func (t *Text) ttl(exptime int64) (ms int64) {
	ms, over := memcached.TTL(exptime, t.now.Wall, wire.MaxTTL)
	if over {
		return 1
	}
	return ms
}
