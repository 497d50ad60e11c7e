package rpc

import (
	"context"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// pace has one owner's connections begin one after another where there are many at once.
// To begin is the dearest moment of a connection: thousands that do at the same time keep
// the requests of others waiting. Those that wait have nothing but their place, and are
// in no other owner's way; of one owner each process has its turn.
type pace struct {
	rate float64 // a second; 0 is no bound

	mu     sync.Mutex
	owners map[string]*lobby
}

// lobby is where one owner's connections wait, by process. The first process has the
// next turn.
type lobby struct {
	limit   *rate.Limiter
	leave   *ease                     // ends of those whose client has gone
	waits   roundRobin[string, *Conn] // by process
	ushered bool                      // somebody begins them
}

// firstAtOnce may begin at once, of each owner.
const firstAtOnce = 128

// rested is how many owners without a connection that waits are kept before those are
// forgotten that have not come for a while.
const rested = 64

// PerProcessor is a rate times the processors that Go uses.
func PerProcessor(n float64) float64 { return n * float64(runtime.GOMAXPROCS(0)) }

// enter says whether a connection begins now. If not it has a place in the lobby, whose
// usher the caller is to run where it returns one.
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
		l = &lobby{limit: rate.NewLimiter(rate.Limit(p.rate), firstAtOnce), leave: newEase(PerProcessor(goes), goesOnce)}
		p.owners[owner] = l
	}
	if !l.ushered {
		if l.limit.Allow() {
			return true, nil
		}
		l.ushered, ushers = true, l
	}
	l.waits.push(process, c)
	return false, ushers
}

// waiting is how many connections wait for their turn.
func (p *pace) waiting() (n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.owners {
		n += int64(l.waits.len())
	}
	return n
}

// forget lets go of owners that have not come for a while. The lock is held.
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

// usher begins a lobby's connections at their pace until it is empty; once ctx ends, at
// once. Those whose client has gone take no turn: they end one after another, at a pace of
// their own, since thousands of goroutines at once would keep others' requests waiting.
func (p *pace) usher(ctx context.Context, l *lobby, begin, end func(*Conn)) {
	for p.stays(l) {
		_ = l.limit.Wait(ctx)
		for c := p.next(l); c != nil; c = p.next(l) {
			if !hasGone(c.nc, c.most) {
				begin(c)
				break
			}
			l.leave.pass(ctx.Done())
			c.ushered = true
			end(c)
		}
	}
}

// stays says whether a lobby's usher has more to do.
func (p *pace) stays(l *lobby) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.ushered = l.waits.len() > 0
	return l.ushered
}

// next takes the next connection out of a lobby, nil where it is empty.
func (p *pace) next(l *lobby) *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.waits.len() == 0 {
		return nil
	}
	return l.waits.pop()
}

// hasGone says whether a client has closed its connection and left no whole frame, or
// one that is longer than most. Of a frame it looks at no more than a small buffer takes.
func hasGone(nc any, most int) (gone bool) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
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
		if n < wire.LengthSize {
			gone = true
			return
		}
		length := wire.FrameLength(b[:])
		whole := wire.LengthSize+length <= n
		if n == len(b) && !whole {
			long := buffers.Get().(*[smallBuffer]byte)
			n, _, err = syscall.Recvfrom(int(fd), long[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
			buffers.Put(long)
			whole = err != nil || n == len(long) || wire.LengthSize+length <= n
		}
		gone = length == 0 || length > most || !whole
	})
	return gone
}

// hungUp says whether the other side has closed a connection.
func hungUp(fd uintptr) bool {
	list := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(list, 0)
	return n == 1 && err == nil && list[0].Revents&unix.POLLHUP != 0
}
