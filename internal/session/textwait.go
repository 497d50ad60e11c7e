package session

import (
	"github.com/cachesidecar/cachesidecar/internal/memcached"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// A command that cannot be answered in place has the reader of its connection wait: answers come in
// the order of the commands, and a command begins after those before it have ended. But reads of one
// key that follow each other, and must wait, are asked for together.

// delayed is a request that has the reader wait. If over is not nil it has begun, and reply is there
// once over is closed.
type delayed struct {
	*Pending
	reply wire.Reply
	over  chan struct{}
}

// wait serves the present request, and appends the answer.
func (t *Text) wait(conn *server.Conn) {
	p, err := t.pend(conn)
	if err != nil {
		t.answerError(conn, err)
		return
	}
	t.askAhead(conn)
	t.finish(conn, &delayed{Pending: p})
}

// askAhead begins the reads behind the present command that must wait too, up to the next command
// that does not read one key.
func (t *Text) askAhead(conn *server.Conn) {
	at, form := t.text.at, t.text.form
	defer func() { t.req, t.text.form = &t.reqs[at], form }()
	for i := at; i < t.text.commands && t.text.cmds[i].ReadsOne(); i++ {
		if i == at || t.text.begun[i] != nil {
			continue
		}
		t.present(i)
		t.beginRead(&t.text.cmds[i])
		if t.refusal() != nil || t.here() {
			continue
		}
		t.text.form.claims = t.claims(t.req)
		if conn.Hold(server.Waits) != nil {
			return // it may find room once it is the first
		}
		p, err := t.pend(conn)
		if err != nil {
			conn.Free(server.Waits)
			return
		}
		a := &delayed{Pending: p, over: make(chan struct{})}
		t.text.begun[i] = a
		go func() { // ends with its request: finish or giveUp waits for it
			a.reply = a.Pending.reply()
			conn.Free(server.Waits)
			close(a.over)
		}()
	}
}

// beginRead begins the request of a command that reads one key.
func (t *Text) beginRead(cmd *memcached.Command) {
	q := t.begin(wire.OpGet, cmd.Key)
	if cmd.Verb != memcached.MetaGet {
		return
	}
	q.Options = wire.StaleOK
	if cmd.Recache {
		q.RenewMS = uint32(min(t.ttl(cmd.RecacheTime), wire.MaxTimeout))
	}
	if cmd.Vivify {
		q.LeaseMS = uint32(min(t.ttl(cmd.VivifyTime), wire.MaxTimeout))
	}
	t.text.form.vivify = cmd.Vivify
}

// here says whether the present read need not wait.
func (t *Text) here() bool {
	var r wire.Reply
	t.Core.Reads.Value(nil, &t.Names, t.req, t.req.Key, 0, t.now, 0, &r)
	return r.Status != wire.Moved
}

// await waits for a request. After an error it was not served, or the client takes no answer.
func (t *Text) await(conn *server.Conn, a *delayed) error {
	t.Names.Release()
	// Only what was cloned is used after that; see getLater and gat for further keys.
	last := t.text.at == t.text.commands-1 && !t.text.form.more && t.text.form.Verb != memcached.Bad
	err := server.Wait(conn, last, func() {
		if a.over == nil {
			a.reply = a.Pending.reply()
		} else {
			<-a.over
		}
	})
	if err != nil && a.over != nil {
		<-a.over
	}
	a.over = nil
	t.now = moment(t.Session, conn) // the time of the next command begins now
	return err
}

// finish waits for a request, and appends its answer.
func (t *Text) finish(conn *server.Conn, a *delayed) {
	err := t.await(conn, a)
	if err == nil && turns(a.form, &a.q, &a.reply) {
		err = t.claim(conn, a)
	}
	for err == nil {
		left := a.left()
		if left == nil {
			break
		}
		t.part(conn, a, left)
		err = t.await(conn, a)
	}
	if err != nil {
		a.reply = wire.ErrorReply(noRoom(err))
	}
	if n := valuesOf(&a.reply); n > smallValue {
		switch err := noRoom(conn.Grow(n+answerSlack*max(1, len(a.reply.Items)), true)); {
		case err != nil && !onlyReads(&a.q): // it was done, and BUSY says that it was not
			conn.Kill()
		case err != nil:
			a.reply = wire.ErrorReply(err)
		}
	}
	conn.Out = a.end(conn.Out, &a.reply)
}

// claim serves the METAGET that the GET of an mg has become. The value of the GET is worth more than
// the claim: if the METAGET fails, it is the answer.
func (t *Text) claim(conn *server.Conn, a *delayed) error {
	got := a.reply
	t.Core.Deadlines.Limit(&a.q, a.deadline)
	err := t.await(conn, a)
	if got.Status != wire.Miss && (err != nil || a.reply.Status.IsError()) {
		a.q.Op, a.q.Options, a.reply = wire.OpGet, wire.StaleOK, got
		return nil
	}
	return err
}

// muchBytes is how many bytes of values show that others are BUSY for their length: the answer, or
// that of their owner, has become too long or has found no memory. Each round writes so many, so
// that they end.
const muchBytes = 1 << 20

// left returns the keys of a get that its reply has had no room for; nil: there are none.
func (a *delayed) left() (keys [][]byte) {
	if a.q.Op != wire.OpMGet {
		return nil
	}
	size := 0
	for i := range a.reply.Items {
		if size += len(a.reply.Items[i].Value); a.reply.Items[i].Status == wire.Busy {
			keys = append(keys, a.q.Keys[i])
		}
	}
	if size <= muchBytes {
		return nil
	}
	return keys
}

// part appends the values that the reply to a get has. The request is that for the keys that are
// left then.
func (t *Text) part(conn *server.Conn, a *delayed, left [][]byte) {
	part, has := a.q, wire.Reply{}
	part.Keys = nil
	for i, key := range a.q.Keys {
		if r := &a.reply.Items[i]; r.Status != wire.Busy {
			part.Keys, has.Items = append(part.Keys, key), append(has.Items, *r)
		}
	}
	if conn.Grow(valuesOf(&has)+answerSlack*len(has.Items), true) == nil { // else they are missing
		form := *a.form
		form.more = true
		conn.Out = appendReply(conn.Out, &form, &t.text.n, &part, &has)
	}
	t.count(&part, &has)
	a.held.Free()
	now := t.Core.Clock.Read()
	a.q.Keys, a.since, a.deadline = left, now.Boot, t.Core.Deadlines.Of(&a.q, now)
}

// giveUp ends the reads that have begun and are not answered: the connection ends.
func (t *Text) giveUp() {
	for i, a := range t.text.begun[:t.text.commands] {
		if a != nil {
			<-a.over
			a.end(nil, &a.reply)
			t.text.begun[i] = nil
		}
	}
}
