package session

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/slow"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// queuedSize is what a LEASE takes while it waits without a goroutine, beside pendingSize: its
// timer, and its place among those that wait.
const queuedSize = 1 << 10

// mayQueue says whether the request is one that may wait in queue.
func (p *Pending) mayQueue() bool {
	return p.Request.Op == wire.OpLease && len(p.turn.before) == 0
}

// queue makes a LEASE wait for the token of its key, or for the fill, without a goroutine: thousands
// may wait for one key. It returns false if the LEASE must be served on a goroutine. The
// connection's reader calls it.
func (p *Pending) queue() bool {
	s, tokens := p.handler, p.Session.Core.Tokens
	if !p.mayQueue() {
		return false
	}
	ns := s.Names.Read(p.Request.Namespace)
	if ns == nil {
		return false
	}
	p.wait = &engine.LeaseWait{Tell: p.granted}
	s.queued.add(p, p.Deadline-s.Core.Clock.Read().Boot)
	r, waits := tokens.Queue(p.wait, ns, &p.Request, s.member)
	if waits {
		return true
	}
	s.queued.remove(p)
	if r.Status == wire.Moved {
		return false
	}
	p.answer(&r).Write()
	return true
}

// giveUp ends a wait in queue, because its time is over or its connection has ended.
func (p *Pending) giveUp() {
	if r, left := p.Session.Core.Tokens.Leave(p.wait); left {
		p.handler.queued.remove(p)
		p.answer(&r).Write()
	}
}

// queued are the LEASEs of a connection that wait in queue.
type queued struct {
	mu    sync.Mutex
	m     map[*Pending]*time.Timer
	ended bool
}

// add makes a LEASE give up after a time, or when the connection ends.
func (l *queued) add(p *Pending, after time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		after = 0
	}
	if l.m == nil {
		l.m = map[*Pending]*time.Timer{}
		context.AfterFunc(p.Session.reading, l.end)
	}
	l.m[p] = time.AfterFunc(after, p.giveUp)
}

func (l *queued) remove(p *Pending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.m[p]; t != nil {
		t.Stop()
		delete(l.m, p)
	}
}

// end makes all LEASEs give up.
func (l *queued) end() {
	l.mu.Lock()
	l.ended = true
	list := slices.Collect(maps.Keys(l.m))
	l.mu.Unlock()
	for _, p := range list {
		p.giveUp()
	}
}

// granted takes the outcome of queue. It does not wait.
func (p *Pending) granted(r wire.Reply, later func(func())) {
	p.handler.queued.remove(p)
	c := p.Session.Core
	now := c.Clock.Read()
	p.trace.Add(slow.Token, "", now.Boot-p.Since)
	if r.Status == wire.Moved { // mostly: it is in the store
		c.Node.CheckPause(now.Boot)
		b := namespaces.Pins{Table: c.Names, Member: p.Session.member}
		if c.Copied(&p.Request, &b) <= SmallValue {
			r = c.Execute(&p.Request, &b, now, 0)
		}
		b.Release()
	}
	n := ValuesOf(&r)
	switch {
	case r.Status == wire.Moved:
		p.start()
		return
	case n > SmallValue:
		err := p.takeStack()
		if err == nil {
			p.Conn.Run(func() ([]byte, bool) { // copies it
				defer p.Held.Copy(n)()
				return p.end(nil, &r), true
			})
			return
		}
		r = wire.ErrorReply(err)
	}
	later(p.answer(&r).Write)
}
