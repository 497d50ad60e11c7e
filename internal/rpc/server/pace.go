package server

import (
	"context"
	"sync"

	"golang.org/x/time/rate"

	"github.com/cachesidecar/cachesidecar/internal/quota"
)

// pace makes the connections of one owner begin one after another when many come at once.
// The beginning is the most expensive moment of a connection: thousands of beginnings at
// the same time delay the requests of others. A connection that waits has only its place
// in the queue, and does not delay other owners. The processes of one owner take turns.
type pace struct {
	rate float64 // a second; zero: no bound

	mu     sync.Mutex
	owners map[string]*newcomers
}

// newcomers are the connections of one owner that wait to begin, by process. Of a process the last
// one that has come is the next. So most of those that begin then begin at once if more come than
// may begin, for long; in their order all of them would wait until their clients give up. The first
// ones have their turns when fewer come.
type newcomers struct {
	limit *rate.Limiter
	waits quota.FairQueue[string, *Conn]
	begin bool // a goroutine begins them
	turns int  // since the last look at those that wait
	at    int  // the first connection that the next look is at
}

// firstAtOnce is how many connections of each owner may begin at once.
const firstAtOnce = 128

// rested is how many owners pace keeps before it forgets owners that have no waiting
// connection and have had no new one for a while.
const rested = 64

// A look is at so many connections, after so many turns. One whose client has gone begins then, and
// ends: without that such connections would take all places while more come than may begin.
const (
	goneLooks = 64
	goneTurns = 16
)

// enter says whether a connection begins now. If not, the connection waits. If enter returns the
// newcomers, the caller must begin them.
func (p *pace) enter(c *Conn, owner, process string) (now bool, begin *newcomers) {
	if p.rate == 0 || owner == "" {
		return true, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.owners[owner]
	if n == nil {
		if p.owners == nil {
			p.owners = map[string]*newcomers{}
		}
		p.forget()
		n = &newcomers{limit: rate.NewLimiter(rate.Limit(p.rate), firstAtOnce)}
		p.owners[owner] = n
	}
	if !n.begin {
		if n.limit.Allow() {
			return true, nil
		}
		n.begin, begin = true, n
	}
	n.waits.Push(process, c)
	return false, begin
}

// waiting returns how many connections wait for their turn.
func (p *pace) waiting() (all int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.owners {
		all += int64(n.waits.Len())
	}
	return all
}

// forget removes owners that have had no new connections for a while. The lock is held.
func (p *pace) forget() {
	if len(p.owners) < rested {
		return
	}
	for name, n := range p.owners {
		if !n.begin && n.limit.Tokens() >= firstAtOnce {
			delete(p.owners, name)
		}
	}
}

// begin begins the newcomers of an owner at its pace until none waits; once ctx ends, at once.
func (p *pace) begin(ctx context.Context, n *newcomers, begin func(*Conn)) {
	for p.continues(n) {
		_ = n.limit.Wait(ctx)
		for _, c := range p.next(n) {
			begin(c)
		}
	}
}

// continues says whether any newcomers wait.
func (p *pace) continues(n *newcomers) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	n.begin = n.waits.Len() > 0
	return n.begin
}

// next removes the next connection, and now and then some whose clients have gone.
func (p *pace) next(n *newcomers) []*Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := []*Conn{n.waits.PopLast()}
	if n.turns++; n.turns < goneTurns {
		return list
	}
	n.turns = 0
	if n.at >= n.waits.Len() {
		n.at = 0
	}
	first, last, i := n.at, n.at+goneLooks, 0
	n.waits.Remove(func(c *Conn) bool {
		i++
		if i <= first || i > last || !c.socket.HungUp() {
			return false
		}
		list = append(list, c)
		return true
	})
	n.at = last - (len(list) - 1)
	return list
}
