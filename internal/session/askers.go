package session

import (
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// askers are the accounts of another host's apps, by their numbers. The reader of the connection between the hosts
// uses them.
type askers struct {
	of   map[uint64]*quota.Account
	last uint64 // and its account
	by   *quota.Account
}

// maxAskers is from how many accounts on those that hold nothing are closed.
const maxAskers = 256

// asker returns the account of who asks: of the app, on whichever host it runs, or of another host itself.
func (ss *Session) asker(q *wire.Request, conn *server.Conn) *quota.Account {
	switch {
	case ss.from.Node == "":
		return ss.account
	case q.By == 0:
		return conn.Account()
	case q.By == ss.askers.last:
		return ss.askers.by
	}
	a := &ss.askers
	by := a.of[q.By]
	if by == nil {
		by = a.open(q.By, string(ss.from.Node), ss.Core.Budget)
	}
	a.last, a.by = q.By, by
	return by
}

// open opens the account of an app of a node.
func (a *askers) open(app uint64, node string, b *quota.Budget) *quota.Account {
	if len(a.of) >= maxAskers {
		for app, by := range a.of {
			if by.Idle() {
				by.Close()
				delete(a.of, app)
			}
		}
	}
	if a.of == nil {
		a.of = map[uint64]*quota.Account{}
	}
	by := b.Open(quota.AppOf(app).Names(node))
	a.of[app] = by
	return by
}

// close closes the accounts. No request of them waits any more.
func (a *askers) close() {
	for _, by := range a.of {
		by.Close()
	}
}
