package endpoint

import (
	"github.com/cachesidecar/cachesidecar/internal/memcached"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// get answers get and gets: each key in place, until one must wait, or until so many are
// answered that other connections would wait for long. The keys from that one on go the slow
// way.
func (t *handler) get(conn *server.Conn, cmd *memcached.Command) {
	c := t.Session
	one := len(cmd.More) == 0
	n := 0
	for key := cmd.Key; key != nil; n++ {
		c.Req.Keys = c.Req.Keys[:0]
		t.begin(wire.OpGet, key)
		if err := t.refusal(); err != nil {
			t.refuse(conn, err)
			return
		}
		if n == wire.MaxKeys || t.value(conn, key) == wire.Moved {
			t.getLater(conn, cmd, key, one)
			return
		}
		if one && c.Reply.Status.IsError() {
			t.answer(conn)
			return
		}
		if key = cmd.NextKey(); !t.flush(conn) {
			return
		}
	}
	conn.Out = append(conn.Out, memcached.End...)
}

// flush writes a long answer. It may wait, and holds nothing meanwhile. It says whether the
// connection still stands.
func (t *handler) flush(conn *server.Conn) bool {
	if len(conn.Out) <= session.FlushAt {
		return !server.Lost(conn)
	}
	t.Names.Release()
	return conn.Flush()
}

// value appends the answer to the present GET, for a key as the client names it, if the
// value is here. It returns the reply's status, or LEASE for a value that mg may renew. Only
// after OK it has appended anything.
func (t *handler) value(conn *server.Conn, key []byte) wire.Status {
	c, form := t.Session, &t.form
	limit := session.SmallValue
	for {
		at := len(conn.Out)
		// The head is as long as the value's numbers, which come with the value: so the value is
		// put behind the longest head, and moved.
		room := memcached.MaxHead + max(len(key), len(form.Key)) + len(form.Opaque)
		gap := at + room
		for cap(conn.Out) < gap {
			conn.Out = append(conn.Out[:cap(conn.Out)], 0)
		}
		now := c.Moment(conn)
		out, size, ns := c.Core.Local.Value(conn.Out[:gap], &c.Names, c.Req, c.Req.Key, limit, now, 0, &c.Reply)
		switch {
		case c.Reply.Status == wire.Moved || c.Reply.Status == wire.Stale:
			conn.Out = conn.Out[:at]
			return c.Reply.Status
		case c.Reply.Status == wire.Miss && form.vivify: // the METAGET counts
			conn.Out = conn.Out[:at]
			return wire.Miss
		case c.Reply.Status != wire.OK:
			conn.Out = conn.Out[:at]
			c.Tally.Add(ns, wire.OpGet, namespaces.OutcomeOf(&c.Reply))
			t.n.get(c.Reply.Status)
			return c.Reply.Status
		case size <= limit && renews(c.Req, &c.Reply):
			conn.Out = conn.Out[:at]
			return wire.Lease
		case size <= limit:
			c.Tally.Add(ns, wire.OpGet, namespaces.HitOf(c.Reply.Source))
			t.n.get(c.Reply.Status)
			conn.Out = t.closeValue(out, at, gap, key)
			return wire.OK
		}
		conn.Out = conn.Out[:at]
		c.Names.Release() // Grow may wait
		if err := session.Busy(conn.Grow(size+room+session.AnswerSlack, true)); err != nil {
			c.Reply = wire.ErrorReply(err)
			return c.Reply.Status
		}
		limit = size // the value may be another one by now, and longer
	}
}

// closeValue puts the head in front of a value that begins at gap of out.
func (t *handler) closeValue(out []byte, at, gap int, key []byte) []byte {
	form := &t.form
	var head int
	if form.Verb == memcached.Get {
		head = len(memcached.AppendGetHead(out[:at], key, t.Reply.Flags, len(out)-gap))
	} else {
		item := itemOf(&t.Reply)
		item.Size = len(out) - gap
		if form.Verb == memcached.MetaGet && !form.Value {
			return form.AppendCode(out[:at], "HD", &item)
		}
		head = len(form.AppendHead(out[:at], nil, key, &item))
	}
	if head < gap {
		n := copy(out[head:], out[gap:])
		out = out[:head+n]
	}
	return append(out, "\r\n"...)
}

// getLater answers a get from key on, which must wait.
func (t *handler) getLater(conn *server.Conn, cmd *memcached.Command, key []byte, one bool) {
	form := &t.form
	if one {
		t.wait(conn)
		return
	}
	form.Key, form.part = nil, true
	for key != nil {
		q := t.begin(wire.OpMGet, key)
		if err := t.refusal(); err != nil { // each part has a namespace of its own
			form.part = false
			t.refuse(conn, err)
			return
		}
		prefix := key[:len(key)-len(q.Key)]
		q.Keys, q.Key = append(q.Keys, q.Key), nil
		form.prefix = prefix
		for {
			key = cmd.NextKey()
			if key == nil || len(q.Keys) == wire.MaxKeys || !t.endpoint.has(prefix, key) {
				break
			}
			q.Keys = append(q.Keys, key[len(prefix):])
		}
		form.more = key != nil
		if t.wait(conn); server.Lost(conn) {
			return
		}
	}
}

// gat answers gat and gats: the TTL changes at the owner of the key, which answers.
func (t *handler) gat(conn *server.Conn, cmd *memcached.Command) {
	form := &t.form
	form.part = len(cmd.More) > 0
	if cmd.Key == nil {
		conn.Out = append(conn.Out, memcached.End...)
	}
	for key := cmd.Key; key != nil; {
		t.retime(t.begin(wire.OpMetaGet, key), cmd.Exptime)
		if err := t.refusal(); err != nil { // it ends the answer, as that of a get
			form.part = false
			t.refuse(conn, err)
			return
		}
		form.Key = key
		next := cmd.NextKey()
		form.more = next != nil
		t.run(conn)
		if key = next; !t.flush(conn) {
			return
		}
	}
}

// retime makes a METAGET give the value the TTL of an exptime. If that is over, the value ends in
// the same step: a value that another client stores right after it stays.
func (t *handler) retime(q *wire.Request, exptime int64) {
	q.Options |= wire.Touch
	ms, over := memcached.TTL(exptime, t.Now.Wall, wire.MaxTTL)
	if over {
		q.Options |= wire.CacheOnly
		return
	}
	q.TTLMS = ms
}

// metaGet answers mg and me.
func (t *handler) metaGet(conn *server.Conn, cmd *memcached.Command) {
	t.beginRead(cmd)
	q := t.Req
	switch {
	case cmd.Verb == memcached.MetaDebug:
		q.Op, q.Options = wire.OpMetaGet, wire.NoValue|wire.Unread|wire.NoLoad
	case cmd.Touch || cmd.Inspect || cmd.Unread:
		metaGet(q, &t.form, t.claims(q))
		if cmd.Unread {
			q.Options |= wire.Unread
		}
		if cmd.Touch {
			t.retime(q, cmd.Exptime)
		}
	default:
		t.metaValue(conn)
		return
	}
	t.run(conn)
}

// metaValue answers mg: from what this host has, as a GET; with the METAGET that the GET becomes,
// if this host owns the key; or later.
func (t *handler) metaValue(conn *server.Conn) {
	c, q, form := t.Session, t.Req, &t.form
	if err := t.refusal(); err != nil {
		t.refuse(conn, err)
		return
	}
	status := t.value(conn, nil)
	switch {
	case status == wire.OK:
		return
	case status == wire.Miss && !form.vivify:
		conn.Out = form.AppendMiss(conn.Out)
		return
	case status.IsError() && status != wire.Moved:
		t.answer(conn)
		return
	}
	form.claims = t.claims(q)
	if status != wire.Moved {
		get := *q
		metaGet(q, form, form.claims)
		c.Limit(conn)
		if t.MetaGet(conn) {
			t.answer(conn)
			return
		}
		*q = get // see handler.claim
	}
	t.wait(conn)
}

// claims says whether the caller may claim the right to load the key of a request.
func (t *handler) claims(q *wire.Request) bool {
	claim := *q
	claim.Op, claim.Options = wire.OpMetaGet, wire.Claim
	return t.By.May(&claim)
}
