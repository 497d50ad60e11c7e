package memcached

import (
	"unsafe"

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
	form  *form // with bytes of its own
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
	at := t.at
	defer t.present(at) // again
	for i := at; i < t.commands && t.cmds[i].readsOne(); i++ {
		if i == at || t.begun[i] != nil {
			continue
		}
		t.present(i)
		t.beginRead(&t.cmds[i])
		if t.refusal() != nil {
			continue
		}
		t.Core.Local.Value(nil, &t.Names, t.Req, t.Req.Key, 0, t.Now, 0, &t.Reply)
		if t.Reply.Status != wire.Moved {
			continue
		}
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
			a.reply = a.ServeInTurn()
			conn.Free(server.Waits)
			close(a.over)
		}()
	}
}

// beginRead begins the request of a command that reads one key.
func (t *handler) beginRead(cmd *command) {
	q := t.beginRequest(wire.OpGet, cmd.key)
	if cmd.verb != verbMetaGet {
		return
	}
	q.Options = wire.StaleOK
	q.RenewMS = uint32(min(t.ttl(cmd.recacheTime), wire.MaxTimeout))
	q.LeaseMS = uint32(min(t.ttl(cmd.vivifyTime), wire.MaxTimeout))
}

// await waits for a request. After an error it was not served, or the client takes no answer.
func (t *handler) await(conn *server.Conn, a *delayed) error {
	t.Names.Release()
	// Only what was cloned is used after that; see getLater and gat for further keys.
	last := t.at == t.commands-1 && !t.form.more
	err := conn.Wait(last, func() {
		if a.over == nil {
			a.reply = a.ServeInTurn()
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

// finish waits for a request, and appends its answer. It asks again for the keys of a get that the reply
// has had no room for.
func (t *handler) finish(conn *server.Conn, a *delayed) {
	for more := a.form.more; ; a.form.more = more {
		err := t.await(conn, a)
		if err == nil && a.form.renews(&a.Request, &a.reply) {
			err = t.claim(conn, a)
		}
		if err != nil {
			a.reply = wire.ErrorReply(session.Busy(err))
		}
		left := a.left()
		makeRoom(conn, a)
		if left == nil {
			break
		}
		conn.Out = a.form.append(conn.Out, &t.n, &a.Request, &a.reply)
		t.Count(&a.Request, &a.reply)
		a.Held.Free()
		a.Request.Keys, a.Since, a.Deadline = left, t.Now.Boot, t.Core.Deadlines.Of(&a.Request, t.Now)
	}
	conn.Out = t.endDelayed(conn.Out, a)
}

// makeRoom makes room for the answer to a request.
func makeRoom(conn *server.Conn, a *delayed) {
	n := session.ValuesOf(&a.reply)
	if n <= session.SmallValue {
		return
	}
	switch err := session.Busy(conn.Grow(n+session.AnswerSlack*max(1, len(a.reply.Items)), true)); {
	case err != nil && !a.Request.OnlyReads(): // it was done, and BUSY says that it was not
		conn.Kill()
	case err != nil:
		a.reply = wire.ErrorReply(err)
	}
}

// endDelayed ends a request, and appends its answer.
func (t *handler) endDelayed(dst []byte, a *delayed) []byte {
	a.End(&a.reply)
	defer a.Held.Free()
	dst = a.form.append(dst, &t.n, &a.Request, &a.reply)
	t.n.flush(&t.endpoint.counts) // before the answer goes
	return dst
}

// claim serves the METAGET that the GET of an mg becomes. The value of the GET is worth more than
// the claim: if the METAGET fails, it is the answer.
func (t *handler) claim(conn *server.Conn, a *delayed) error {
	got := a.reply
	t.claiming(&a.Request, a.form)
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

// left takes the keys out of a get that its reply has had no room for; nil: there are none.
func (a *delayed) left() (left [][]byte) {
	if session.ValuesOf(&a.reply) <= muchBytes {
		return nil
	}
	q, r := &a.Request, &a.reply
	keys, items := q.Keys, r.Items
	q.Keys, r.Items = keys[:0], items[:0]
	for i, key := range keys {
		if items[i].Status == wire.Busy {
			left, a.form.more = append(left, key), true
		} else {
			q.Keys, r.Items = append(q.Keys, key), append(r.Items, items[i])
		}
	}
	return left
}

// giveUp ends the reads that have begun and are not answered: the connection ends.
func (t *handler) giveUp() {
	for i, a := range t.begun[:t.commands] {
		if a != nil {
			<-a.over
			t.endDelayed(nil, a)
			t.begun[i] = nil
		}
	}
}
