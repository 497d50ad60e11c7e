package memcached

import (
	"slices"

	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// get answers get and gets: each key in place, until one must wait, or until so many are
// answered that other connections would wait for long. The keys from that one on go the slow
// way.
func (t *handler) get(conn *server.Conn, cmd *command) {
	t.form.part = len(cmd.rest) > 0
	n := 0
	for key := cmd.key; key != nil; n++ {
		t.beginRequest(wire.OpGet, key)
		if t.refused(conn) {
			return
		}
		if n < wire.MaxKeys {
			t.value(conn, key)
		}
		switch status := t.Reply.Status; {
		case n == wire.MaxKeys, status == wire.Moved:
			t.getLater(conn, cmd, key)
			return
		case status.IsError() && !t.form.part:
			t.answer(conn)
			return
		default:
			t.n.get(status)
		}
		if key = cmd.nextKey(); !t.flush(conn) {
			return
		}
	}
	conn.Out = append(conn.Out, end...)
}

// flush writes a long answer. It may wait, and holds nothing meanwhile. It says whether the
// connection still stands.
func (t *handler) flush(conn *server.Conn) bool {
	if len(conn.Out) <= session.FlushAt {
		return !conn.Lost()
	}
	t.Names.Release()
	return conn.Flush()
}

// value executes the present GET in place, for a key as the client names it. If the value is here, and
// the client need not load it anew, it is appended. Else the reply is MOVED, or to be answered.
func (t *handler) value(conn *server.Conn, key []byte) {
	c, form, r := t.Session, t.form, &t.Reply
	// The head is as long as the value's numbers, which come with the value: so the value is
	// put behind the longest head, and moved.
	room := maxHead + max(len(key), len(form.written)) + len(form.opaque)
	for limit := session.SmallValue; ; {
		at := len(conn.Out)
		conn.Out = slices.Grow(conn.Out, room)
		out, size, ns := c.Core.Local.Value(conn.Out[:at+room], &c.Names, c.Req, c.Req.Key, limit, c.Moment(conn), 0, r)
		switch {
		case r.Status == wire.Moved || form.renews(c.Req, r):
			return
		case r.Status != wire.OK:
			c.Tally.Add(ns, wire.OpGet, namespaces.OutcomeOf(r))
			return
		case size <= limit:
			c.Tally.Add(ns, wire.OpGet, namespaces.HitOf(r.Source))
			conn.Out = t.closeValue(out, at, at+room, key)
			return
		}
		c.Names.Release() // Grow may wait
		if err := session.Busy(conn.Grow(size+room+session.AnswerSlack, true)); err != nil {
			*r = wire.ErrorReply(err)
			return
		}
		limit = size // the value may be another one by now, and longer
	}
}

// closeValue puts the head in front of a value that begins at gap of out.
func (t *handler) closeValue(out []byte, at, gap int, key []byte) []byte {
	form, r := t.form, &t.Reply
	size := len(out) - gap
	if r.Size = uint64(size); form.isMeta() && !form.withValue {
		return form.appendCode(out[:at], "HD", r)
	}
	head := len(form.appendHead(out[:at], nil, key, size, r))
	copy(out[head:], out[gap:])
	return append(out[:head+size], crlf...)
}

// getLater answers a get from key on, which must wait.
func (t *handler) getLater(conn *server.Conn, cmd *command, key []byte) {
	form := t.form
	if !form.part {
		t.wait(conn)
		return
	}
	form.written = nil
	for key != nil {
		q := t.beginRequest(wire.OpMGet, key)
		if t.refused(conn) { // each part has a namespace of its own
			return
		}
		form.prefix = key[:len(key)-len(q.Key)]
		for {
			q.Keys = append(q.Keys, key[len(form.prefix):])
			key = cmd.nextKey()
			if key == nil || len(q.Keys) == wire.MaxKeys || !t.endpoint.has(form.prefix, key) {
				break
			}
		}
		q.Key = nil
		form.more = key != nil
		if t.wait(conn); conn.Lost() {
			return
		}
		conn.Rest()
	}
}

// gat answers gat and gats: the TTL changes at the owner of the key, which answers.
func (t *handler) gat(conn *server.Conn, cmd *command) {
	form := t.form
	form.part = len(cmd.rest) > 0
	if cmd.key == nil {
		conn.Out = append(conn.Out, end...)
	}
	for key := cmd.key; key != nil; {
		t.retime(t.beginRequest(wire.OpMetaGet, key), cmd.exptime)
		form.written = key
		next := cmd.nextKey()
		form.more = next != nil
		if !t.run(conn) || !t.flush(conn) { // a refusal ends the answer, as that of a get
			return
		}
		key = next
	}
}

// retime makes a METAGET give the value the TTL of an exptime. If that is over, the value ends in
// the same step: a value that another client stores right after it stays.
func (t *handler) retime(q *wire.Request, exptime int64) {
	q.Options |= wire.Touch
	ms, over := ttlOf(exptime, t.Now.Wall)
	if over {
		q.Options |= wire.CacheOnly
		return
	}
	q.TTLMS = ms
}

// metaGet answers mg and me.
func (t *handler) metaGet(conn *server.Conn, cmd *command) {
	t.beginRead(cmd)
	q := t.Req
	switch {
	case cmd.verb == verbMetaDebug:
		lookAt(q)
	case cmd.setsTTL || cmd.inspect || cmd.unread:
		t.claiming(q, t.form)
		if cmd.unread {
			q.Options |= wire.Unread
		}
		if cmd.setsTTL {
			t.retime(q, cmd.exptime)
		}
	default:
		t.metaValue(conn)
		return
	}
	t.run(conn)
}

// lookAt makes a request tell of a value without a read of it.
func lookAt(q *wire.Request) { q.Op, q.Options = wire.OpMetaGet, wire.NoValue|wire.Unread|wire.NoLoad }

// metaValue answers mg: from what this host has, as a GET; with the METAGET that the GET becomes,
// if this host owns the key; or later.
func (t *handler) metaValue(conn *server.Conn) {
	if t.refused(conn) {
		return
	}
	t.value(conn, nil)
	q, r := t.Req, &t.Reply
	switch {
	case r.Status == wire.Moved:
	case t.form.renews(q, r):
		get := *q
		t.claiming(q, t.form)
		t.Limit(conn)
		if t.Execute(conn) {
			t.answer(conn)
			return
		}
		*q = get // see handler.claim
	case r.Status == wire.OK:
		t.n.get(wire.OK)
		return
	default:
		t.answer(conn)
		return
	}
	t.wait(conn)
}

// claiming turns the GET of an mg into a METAGET, which claims the right to load the value if the caller
// may.
func (t *handler) claiming(q *wire.Request, f *form) {
	q.Op, q.Options = wire.OpMetaGet, wire.Claim
	switch {
	case !t.By.May(q):
		q.Options = 0
	case f.vivify:
		q.Options |= wire.Create
	}
	if !f.withValue {
		q.Options |= wire.NoValue
	}
}
