package rpc

import (
	"context"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// pace makes the connections of one owner begin one after another when many come at once.
// The beginning is the most expensive moment of a connection: thousands of beginnings at
// the same time delay the requests of others. A connection that waits has only its place
// in the queue, and does not delay other owners. The processes of one owner take turns.
type pace struct {
	rate    float64 // a second; zero: no bound
	framing Framing // of the requests; nil: the default

	mu     sync.Mutex
	owners map[string]*lobby
}

// lobby is where the connections of one owner wait, by process. The first process has the
// next turn.
type lobby struct {
	limit   *rate.Limiter
	leave   *ease                        // ends of connections whose client has gone
	waits   roundRobin[string, newcomer] // by process
	ushered bool                         // an usher begins them
	sweep   sweep                        // of the usher
}

// newcomer is a connection that waits.
type newcomer struct {
	*Conn
	came time.Time
}

// An owner that brings more connections than may begin, for long, would have all of them
// wait until their clients give up, and its turns would go to clients that have gone. So
// connections that have waited for less than lively come first. Once the first connection
// of a process has waited for longer, the last one that has come is the next: most of
// those that begin then begin at once. The others have their turns when fewer come, in
// their order.
const lively = 100 * time.Millisecond

// sweep finds connections without a waiting client. A connection that has waited for longer
// than forsaken, and whose client has gone, ends even if the client has left a request.
// Without that such connections would take all places while more come than may begin.
type sweep struct {
	turns int // since the last look
	at    int // the first connection that the next look is at
	gone  []*Conn
}

// A look is at sweepLooks connections, every sweepTurns turns. After each turn sweepEnds of
// those that it has found end: more would delay the next turn.
const (
	forsaken   = time.Second
	sweepTurns = 16
	sweepLooks = 256
	sweepEnds  = 4
)

// firstAtOnce is how many connections of each owner may begin at once.
const firstAtOnce = 128

// rested is how many owners pace keeps before it forgets owners that have no waiting
// connection and have had no new one for a while.
const rested = 64

// enter says whether a connection begins now. If not, the connection has a place in the
// lobby. If enter returns the lobby, the caller must run its usher.
func (p *pace) enter(c *Conn, owner, process string) (now bool, ushers *lobby) {
	if p.rate == 0 || owner == "" {
		return true, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.owners[owner]
	if l == nil {
		if p.owners == nil {
			p.owners = map[string]*lobby{}
		}
		p.forget()
		limit := rate.NewLimiter(rate.Limit(p.rate), firstAtOnce)
		l = &lobby{limit: limit, leave: newEase(PerProcessor(goes), goesOnce)}
		p.owners[owner] = l
	}
	if !l.ushered {
		if l.limit.Allow() {
			return true, nil
		}
		l.ushered, ushers = true, l
	}
	l.waits.push(process, newcomer{c, time.Now()})
	return false, ushers
}

// waiting returns how many connections wait for their turn.
func (p *pace) waiting() (n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.owners {
		n += int64(l.waits.len())
	}
	return n
}

// forget removes owners that have had no new connections for a while. The lock is held.
func (p *pace) forget() {
	if len(p.owners) < rested {
		return
	}
	for name, l := range p.owners {
		if !l.ushered && l.limit.Tokens() >= firstAtOnce {
			delete(p.owners, name)
		}
	}
}

// usher begins the connections of a lobby at its pace until the lobby is empty; once ctx
// ends, at once. A connection whose client has gone takes no turn. Such connections end
// one after another, at a pace of their own, because thousands of goroutines at once
// would delay the requests of others.
func (p *pace) usher(ctx context.Context, l *lobby, begin, end func(*Conn)) {
	for p.continues(l) {
		_ = l.limit.Wait(ctx)
		for c := p.next(l); c != nil; c = p.next(l) {
			if !hasGone(c.socket.nc, p.framing, c.longest) {
				begin(c)
				break
			}
			l.dismiss(ctx, c, end)
		}
		for _, c := range p.forsaken(l) {
			l.dismiss(ctx, c, end)
		}
	}
}

// dismiss ends a connection that does not begin.
func (l *lobby) dismiss(ctx context.Context, c *Conn, end func(*Conn)) {
	l.leave.waitTurn(ctx.Done())
	c.byLobby = true
	end(c)
}

// forsaken removes some of the connections of a lobby without a waiting client. They must be
// ended.
func (p *pace) forsaken(l *lobby) (gone []*Conn) {
	s := &l.sweep
	if s.turns++; s.turns >= sweepTurns && len(s.gone) == 0 {
		s.turns = 0
		p.look(l)
	}
	n := min(sweepEnds, len(s.gone))
	gone, s.gone = s.gone[:n], s.gone[n:]
	return gone
}

// look looks for connections without a waiting client.
func (p *pace) look(l *lobby) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &l.sweep
	if s.at >= l.waits.len() {
		s.at = 0
	}
	first, last, n := s.at, s.at+sweepLooks, 0
	before := time.Now().Add(-forsaken)
	l.waits.remove(func(c newcomer) bool {
		if n++; n <= first || n > last || !c.came.Before(before) || !lost(c.socket.nc) {
			return false
		}
		s.gone = append(s.gone, c.Conn)
		return true
	})
	s.at = last - len(s.gone)
}

// continues says whether a lobby's usher has more to do.
func (p *pace) continues(l *lobby) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.ushered = l.waits.len() > 0 || len(l.sweep.gone) > 0
	return l.ushered
}

// next removes the next connection from a lobby. It returns nil if the lobby is empty.
func (p *pace) next(l *lobby) *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.waits.len() == 0 {
		return nil
	}
	after := time.Now().Add(-lively)
	if c, ok := l.waits.popLively(func(c newcomer) bool { return c.came.After(after) }); ok {
		return c.Conn
	}
	return l.waits.pop().Conn
}

// hasGone says whether a client has closed its connection and left no whole frame, or a
// frame longer than most. It looks at no more of a frame than a small buffer takes.
func hasGone(nc any, f Framing, most int) (gone bool) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	if f == nil {
		f = prefixed{}
	}
	_ = raw.Control(func(fd uintptr) {
		var b [512]byte // longer than a HELLO
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		if err != nil || n == 0 {
			gone = err == nil
			return
		}
		if !hungUp(fd) {
			return
		}
		cut := f.Cut(b[:n], 0, most)
		if n == len(b) && cut.Frame == nil {
			long := buffers.Get().(*[smallBuffer]byte)
			n, _, err = syscall.Recvfrom(int(fd), long[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
			if err != nil || n == len(long) {
				cut.Frame = long[:0]
			} else {
				cut = f.Cut(long[:n], 0, most)
			}
			buffers.Put(long)
		}
		gone = cut.Bad != nil || cut.Frame == nil
	})
	return gone
}

// lost says whether a client has closed its connection.
func lost(nc any) (gone bool) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) { gone = hungUp(fd) })
	return gone
}

// hungUp says whether the other side has closed a connection.
func hungUp(fd uintptr) bool {
	list := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(list, 0)
	return n == 1 && err == nil && list[0].Revents&unix.POLLHUP != 0
}
