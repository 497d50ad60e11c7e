package session

import (
	"github.com/cachesidecar/cachesidecar/internal/memcached"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// get answers get and gets: each key in place, until one must wait, or until so many are
// answered that other connections would wait for long. The keys from that one on go the slow
// way.
func (t *Text) get(conn *server.Conn, cmd *memcached.Command) {
	c := t.Session
	one := len(cmd.More) == 0
	n := 0
	for key := cmd.Key; key != nil; n++ {
		c.req.Keys = c.req.Keys[:0]
		t.begin(wire.OpGet, key)
		if err := t.refusal(); err != nil {
			c.answerError(conn, err)
			return
		}
		if n == wire.MaxKeys || t.value(conn, key) == wire.Moved {
			t.getLater(conn, cmd, key, one)
			return
		}
		if one && c.reply.Status.IsError() {
			c.answer(conn)
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
func (t *Text) flush(conn *server.Conn) bool {
	if len(conn.Out) <= flushAt {
		return !server.Lost(conn)
	}
	t.Names.Release()
	return conn.Flush()
}

// value appends the answer to the present GET, for a key as the client names it, if the
// value is here. It returns the reply's status, or LEASE for a value that mg may renew. Only
// after OK it has appended anything.
func (t *Text) value(conn *server.Conn, key []byte) wire.Status {
	c, form := t.Session, &t.text.form
	limit := smallValue
	for {
		at := len(conn.Out)
		// The head is as long as the value's numbers, which come with the value: so the value is
		// put behind the longest head, and moved.
		room := memcached.MaxHead + max(len(key), len(form.Key)) + len(form.Opaque)
		gap := at + room
		for cap(conn.Out) < gap {
			conn.Out = append(conn.Out[:cap(conn.Out)], 0)
		}
		now := moment(c, conn)
		out, size, ns := c.Core.Reads.Value(conn.Out[:gap], &c.Names, c.req, c.req.Key, limit, now, 0, &c.reply)
		switch {
		case c.reply.Status == wire.Moved || c.reply.Status == wire.Stale:
			conn.Out = conn.Out[:at]
			return c.reply.Status
		case c.reply.Status == wire.Miss && form.vivify: // the METAGET counts
			conn.Out = conn.Out[:at]
			return wire.Miss
		case c.reply.Status != wire.OK:
			conn.Out = conn.Out[:at]
			c.tally.add(ns, wire.OpGet, namespaces.OutcomeOf(&c.reply))
			t.text.n.get(c.reply.Status)
			return c.reply.Status
		case size <= limit && renews(c.req, &c.reply):
			conn.Out = conn.Out[:at]
			return wire.Lease
		case size <= limit:
			c.tally.add(ns, wire.OpGet, namespaces.HitOf(c.reply.Source))
			t.text.n.get(c.reply.Status)
			conn.Out = t.closeValue(out, at, gap, key)
			return wire.OK
		}
		conn.Out = conn.Out[:at]
		c.Names.Release() // Grow may wait
		if err := noRoom(conn.Grow(size+room+answerSlack, true)); err != nil {
			c.reply = wire.ErrorReply(err)
			return c.reply.Status
		}
		limit = size // the value may be another one by now, and longer
	}
}

// closeValue puts the head in front of a value that begins at gap of out.
func (t *Text) closeValue(out []byte, at, gap int, key []byte) []byte {
	form := &t.text.form
	var head int
	if form.Verb == memcached.Get {
		head = len(memcached.AppendGetHead(out[:at], key, t.reply.Flags, len(out)-gap))
	} else {
		item := itemOf(&t.reply)
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
func (t *Text) getLater(conn *server.Conn, cmd *memcached.Command, key []byte, one bool) {
	c, form := t.Session, &t.text.form
	if one {
		c.later(conn)
		return
	}
	form.Key, form.part = nil, true
	for key != nil {
		q := t.begin(wire.OpMGet, key)
		if err := t.refusal(); err != nil { // each part has a namespace of its own
			form.part = false
			c.answerError(conn, err)
			return
		}
		prefix := key[:len(key)-len(q.Key)]
		q.Keys, q.Key = append(q.Keys, q.Key), nil
		form.prefix = prefix
		for {
			key = cmd.NextKey()
			if key == nil || len(q.Keys) == wire.MaxKeys || !t.text.door.has(prefix, key) {
				break
			}
			q.Keys = append(q.Keys, key[len(prefix):])
		}
		form.more = key != nil
		if c.later(conn); server.Lost(conn) {
			return
		}
	}
}

// gat answers gat and gats: the TTL changes at the owner of the key, which answers.
func (t *Text) gat(conn *server.Conn, cmd *memcached.Command) {
	c, form := t.Session, &t.text.form
	form.part = len(cmd.More) > 0
	if cmd.Key == nil {
		conn.Out = append(conn.Out, memcached.End...)
	}
	for key := cmd.Key; key != nil; {
		t.retime(t.begin(wire.OpMetaGet, key), cmd.Exptime)
		if err := t.refusal(); err != nil { // it ends the answer, as that of a get
			form.part = false
			c.answerError(conn, err)
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
func (t *Text) retime(q *wire.Request, exptime int64) {
	q.Options |= wire.Touch
	ms, over := memcached.TTL(exptime, t.now.Wall, wire.MaxTTL)
	if over {
		q.Options |= wire.CacheOnly
		return
	}
	q.TTLMS = ms
}

// metaGet answers mg and me.
func (t *Text) metaGet(conn *server.Conn, cmd *memcached.Command) {
	t.beginRead(cmd)
	q := t.req
	switch {
	case cmd.Verb == memcached.MetaDebug:
		q.Op, q.Options = wire.OpMetaGet, wire.NoValue|wire.Unread|wire.NoLoad
	case cmd.Touch || cmd.Inspect || cmd.Unread:
		metaGet(q, &t.text.form, t.claims(q))
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
func (t *Text) metaValue(conn *server.Conn) {
	c, q, form := t.Session, t.req, &t.text.form
	if err := t.refusal(); err != nil {
		c.answerError(conn, err)
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
		c.answer(conn)
		return
	}
	form.claims = t.claims(q)
	if status != wire.Moved {
		get := *q
		metaGet(q, form, form.claims)
		limit(c, conn)
		if c.metaGet(conn) {
			return
		}
		*q = get // see Text.claim
	}
	c.later(conn)
}

// claims says whether the caller may claim the right to load the key of a request.
func (t *Text) claims(q *wire.Request) bool {
	claim := *q
	claim.Op, claim.Options = wire.OpMetaGet, wire.Claim
	return t.By.May(&claim)
}
