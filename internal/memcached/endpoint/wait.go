package endpoint

import (
	"unsafe"

	"github.com/cachesidecar/cachesidecar/internal/memcached"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// A command that cannot be answered in place has the reader of its connection wait: answers come in
// the order of the commands, and a command begins after those before it have ended. But reads of one
// key that follow each other, and must wait, are asked for together.

// delayed is a request that has the reader wait. If over is not nil it has begun, and reply is there
// once over is closed.
type delayed struct {
	session.Waiting
	form  *answerForm // with bytes of its own
	reply wire.Reply
	over  chan struct{}
}

// wait serves the present request, and appends the answer.
func (t *handler) wait(conn *server.Conn) {
	a, err := t.delay(conn)
	if err != nil {
		t.refuse(conn, err)
		return
	}
	t.askAhead(conn)
	t.finish(conn, a)
}

// delay makes the present request one that waits.
func (t *handler) delay(conn *server.Conn) (*delayed, *wire.Error) {
	a := &delayed{}
	if err := a.Begin(t.Session, conn, delayedSize); err != nil {
		return nil, err
	}
	a.form = t.form.clone()
	return a, nil
}

// delayedSize is what a delayed request takes beside its own bytes and a goroutine.
const delayedSize = int(unsafe.Sizeof(delayed{})) + 512

// askAhead begins the reads behind the present command that must wait too, up to the next command
// that does not read one key.
func (t *handler) askAhead(conn *server.Conn) {
	at, was, quiet := t.at, t.form, t.Quiet
	defer func() { t.Req, t.form, t.Quiet = &t.Reqs[at], was, quiet }()
	for i := at; i < t.commands && t.cmds[i].ReadsOne(); i++ {
		if i == at || t.begun[i] != nil {
			continue
		}
		t.present(i)
		t.beginRead(&t.cmds[i])
		if t.refusal() != nil || t.here() {
			continue
		}
		t.form.claims = t.claims(t.Req)
		if conn.Hold(server.Waits) != nil {
			return // it may find room once it is the first
		}
		a, err := t.delay(conn)
		if err != nil {
			conn.Free(server.Waits)
			return
		}
		a.over = make(chan struct{})
		t.begun[i] = a
		go func() { // ends with its request: finish or giveUp waits for it
			a.reply = a.Serve()
			conn.Free(server.Waits)
			close(a.over)
		}()
	}
}

// beginRead begins the request of a command that reads one key.
func (t *handler) beginRead(cmd *memcached.Command) {
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
	t.form.vivify = cmd.Vivify
}

// here says whether the present read need not wait.
func (t *handler) here() bool {
	var r wire.Reply
	t.Core.Local.Value(nil, &t.Names, t.Req, t.Req.Key, 0, t.Now, 0, &r)
	return r.Status != wire.Moved
}

// await waits for a request. After an error it was not served, or the client takes no answer.
func (t *handler) await(conn *server.Conn, a *delayed) error {
	t.Names.Release()
	// Only what was cloned is used after that; see getLater and gat for further keys.
	last := t.at == t.commands-1 && !t.form.more && t.form.Verb != memcached.Invalid
	err := server.Wait(conn, last, func() {
		if a.over == nil {
			a.reply = a.Serve()
		} else {
			<-a.over
		}
	})
	if err != nil && a.over != nil {
		<-a.over
	}
	a.over = nil
	t.Now = t.Session.Moment(conn) // the time of the next command begins now
	return err
}

// finish waits for a request, and appends its answer.
func (t *handler) finish(conn *server.Conn, a *delayed) {
	err := t.await(conn, a)
	if err == nil && turns(a.form, &a.Request, &a.reply) {
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
		a.reply = wire.ErrorReply(session.Busy(err))
	}
	if n := session.ValuesOf(&a.reply); n > session.SmallValue {
		switch err := session.Busy(conn.Grow(n+session.AnswerSlack*max(1, len(a.reply.Items)), true)); {
		case err != nil && !session.OnlyReads(&a.Request): // it was done, and BUSY says that it was not
			conn.Kill()
		case err != nil:
			a.reply = wire.ErrorReply(err)
		}
	}
	conn.Out = t.end(conn.Out, a)
}

// end ends a request, and appends its answer.
func (t *handler) end(dst []byte, a *delayed) []byte {
	a.End(&a.reply)
	defer a.Held.Free()
	dst = a.form.append(dst, &t.n, &a.Request, &a.reply)
	t.n.flush(&t.endpoint.counts) // before the answer goes
	return dst
}

// claim serves the METAGET that the GET of an mg has become. The value of the GET is worth more than
// the claim: if the METAGET fails, it is the answer.
func (t *handler) claim(conn *server.Conn, a *delayed) error {
	got := a.reply
	t.Core.Deadlines.Limit(&a.Request, a.Deadline)
	err := t.await(conn, a)
	if got.Status != wire.Miss && (err != nil || a.reply.Status.IsError()) {
		a.Request.Op, a.Request.Options, a.reply = wire.OpGet, wire.StaleOK, got
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
	if a.Request.Op != wire.OpMGet {
		return nil
	}
	size := 0
	for i := range a.reply.Items {
		if size += len(a.reply.Items[i].Value); a.reply.Items[i].Status == wire.Busy {
			keys = append(keys, a.Request.Keys[i])
		}
	}
	if size <= muchBytes {
		return nil
	}
	return keys
}

// part appends the values that the reply to a get has. The request is that for the keys that are
// left then.
func (t *handler) part(conn *server.Conn, a *delayed, left [][]byte) {
	part, has := a.Request, wire.Reply{}
	part.Keys = nil
	for i, key := range a.Request.Keys {
		if r := &a.reply.Items[i]; r.Status != wire.Busy {
			part.Keys, has.Items = append(part.Keys, key), append(has.Items, *r)
		}
	}
	if conn.Grow(session.ValuesOf(&has)+session.AnswerSlack*len(has.Items), true) == nil { // else they are missing
		f := *a.form
		f.more = true
		conn.Out = f.append(conn.Out, &t.n, &part, &has)
	}
	t.Count(&part, &has)
	a.Held.Free()
	now := t.Core.Clock.Read()
	a.Request.Keys, a.Since, a.Deadline = left, now.Boot, t.Core.Deadlines.Of(&a.Request, now)
}

// giveUp ends the reads that have begun and are not answered: the connection ends.
func (t *handler) giveUp() {
	for i, a := range t.begun[:t.commands] {
		if a != nil {
			<-a.over
			t.end(nil, a)
			t.begun[i] = nil
		}
	}
}
