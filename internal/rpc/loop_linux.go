package rpc

import (
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// loop serves connections without TLS that are idle, or alone, on one goroutine, which
// waits for all of them in epoll. An idle connection has no stack then. The requests of a
// lone one are answered by the thread that they have woken, without the poller and the
// scheduler of Go.
//
// A connection leaves the loop, and its reader is a goroutine, while that is better: if the
// reader must wait in the middle of a batch or for the rest of a frame, if several
// connections are busy, or if calls of Clients answer its requests. Go's scheduler divides the
// work of many among the processors, and its poller waits for the Clients' answers: the same
// thread can wait for the connection there. Once the connection has been idle for a moment,
// it comes home.
//
// The loop begins with the first connection. A server without one has no goroutine in a
// system call, which virtual time could not do without.
type loop struct {
	server *Server
	group  sync.WaitGroup // of the goroutines that run the loop, and of sweep
	halted chan struct{}  // ends sweep

	poll int // of epoll
	bell int // a descriptor in poll whose event makes the loop look at what follows

	// Several connections are busy if so many batches in a tick came after one of another
	// connection of this process. A connection that is served so often meanwhile leaves.
	changes, leaves int

	mu    sync.Mutex
	begun bool
	ends  bool
	conns map[int32]*Conn // by bare descriptor
	freed []*Conn         // have been attached, and may still be in conns
}

const (
	// loopEvents is how many connections a loop serves between two waits.
	loopEvents = 64
	// loopTick is how often the loop lets Go's scheduler run. The scheduler takes a goroutine
	// that does not for one that never ends: from 10 ms on, the runtime's monitor sends a
	// signal every 20 µs to stop it.
	loopTick = 2 * time.Millisecond

	loopChanges = 16
	loopLeaves  = 8
)

func newLoop(s *Server) *loop { return &loop{server: s, changes: loopChanges, leaves: loopLeaves} }

// take moves a connection into the loop. It returns false if the connection must have a
// goroutine. Only the connection's reader calls it, or what begins the connection.
func (l *loop) take(c *Conn) bool {
	if !c.server.limits.Loop || !c.socket.plain() || !l.begin() || !c.detach() {
		return false
	}
	if c.ending() != nil { // what has told the reader so was lost
		c.socket.wake()
	}
	fd := c.socket.bare.fd
	c.loop, c.crowded = l, 0
	l.server.wg.Add(1) // until the connection leaves the loop
	l.mu.Lock()
	l.conns[int32(fd)], c.inLoop = c, true
	l.mu.Unlock()
	err := l.wait(fd)
	if err == nil {
		return true
	}
	attached := c.socket.attach()
	l.remove(c)
	if attached != nil {
		go l.serve(c, err) // the server waits for its connections
		return true
	}
	l.server.wg.Done()
	return false
}

// free is called after a connection was attached, by any goroutine. The loop lets it go, so
// that its reader waits where deadlines end the wait.
func (l *loop) free(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.inLoop {
		l.freed = append(l.freed, c)
		l.ring()
	}
}

// ring makes the loop look at what the bell stands for.
func (l *loop) ring() { _, _ = unix.Write(l.bell, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// heard returns what the bell has stood for.
func (l *loop) heard() (freed []*Conn, ends bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ends { // else another goroutine that runs the loop hears it too
		var b [8]byte
		_, _ = unix.Read(l.bell, b[:])
	}
	freed, l.freed = slices.DeleteFunc(l.freed, func(c *Conn) bool { return !c.inLoop }), nil
	return freed, l.ends
}

// detach makes the connection bare, unless something is being written.
func (c *Conn) detach() bool {
	o := &c.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err == nil && !o.writing && c.socket.detach()
}

// begin starts the loop, if it has not begun.
func (l *loop) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.begun {
		return true
	}
	var err error
	if l.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return false
	}
	if l.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		_ = unix.Close(l.poll)
		return false
	}
	if err := l.wait(l.bell); err != nil {
		l.close()
		return false
	}
	l.conns, l.halted, l.begun = map[int32]*Conn{}, make(chan struct{}), true
	l.group.Go(l.run)   // ends with halt
	l.group.Go(l.sweep) // ends with halt
	return true
}

// wait makes the loop wait for a descriptor.
func (l *loop) wait(fd int) error {
	return unix.EpollCtl(l.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

func (l *loop) close() {
	_ = unix.Close(l.poll)
	_ = unix.Close(l.bell)
}

// halt ends the loop, which has no connections any more.
func (l *loop) halt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.begun {
		close(l.halted)
		l.ends = true
		l.ring()
		l.mu.Unlock()
		l.group.Wait()
		l.mu.Lock()
		l.close()
		l.begun, l.ends = false, false
	}
}

// remove makes the loop wait for a connection no more. A connection that is still bare keeps
// its descriptor, for the answers that are under way.
func (l *loop) remove(c *Conn) {
	fd := c.socket.bare.fd
	_ = unix.EpollCtl(l.poll, unix.EPOLL_CTL_DEL, fd, nil)
	l.mu.Lock()
	delete(l.conns, int32(fd))
	c.inLoop = false
	l.mu.Unlock()
	c.loop = nil
	if !c.socket.bare.is.Load() {
		c.socket.letGo()
	}
}

// serve serves a connection that has left the loop; err says why it ends now, nil that it
// goes on.
func (l *loop) serve(c *Conn, err error) {
	defer l.server.wg.Done()
	l.server.serve(c, err)
}

// leaveLoop is called by a connection's reader before it waits. The goroutine goes on as the
// connection's own, and another one runs the loop. After an error, for want of a descriptor,
// the reader must not wait.
func (c *Conn) leaveLoop() error {
	l := c.loop
	if l == nil {
		return nil
	}
	if err := c.socket.attach(); err != nil {
		return err
	}
	l.remove(c)
	l.group.Go(l.run)
	return nil
}

// run waits and serves until the loop ends, or until a connection has kept the goroutine as
// its own.
func (l *loop) run() {
	var events [loopEvents]unix.EpollEvent
	b := bustle{at: time.Now()}
	for {
		n, err := unix.EpollWait(l.poll, events[:], -1)
		if err != nil && err != unix.EINTR {
			panic("rpc: epoll_wait: " + err.Error()) // a descriptor of the loop is broken
		}
		for _, ev := range events[:max(n, 0)] {
			if ev.Fd == int32(l.bell) {
				freed, ends := l.heard()
				if ends {
					return
				}
				for _, c := range freed {
					if !c.socket.bare.is.Load() {
						l.remove(c)
						go l.serve(c, nil) // the server waits for its connections
					}
				}
				continue
			}
			l.mu.Lock()
			c := l.conns[ev.Fd]
			l.mu.Unlock()
			if c == nil {
				continue
			}
			n, err := c.readReady()
			switch {
			case c.loop == nil: // it has waited
				l.serve(c, err)
				return
			case err != nil, !c.socket.bare.is.Load(), b.crowds(c, l.leaves) && c.socket.attach() == nil:
				l.remove(c)
				go l.serve(c, err) // the server waits for its connections
			case n >= lookBelow:
				b.large = true
			}
		}
		b.rest(l.changes)
	}
}

// bustle is how busy a loop is, of the goroutine that runs it.
type bustle struct {
	at      time.Time // when the present tick began
	gave    time.Time // when the loop last gave way
	changes int       // in this tick: another connection of the process was served before
	many    bool      // several connections were busy in the last tick
	large   bool      // a large batch has been served since the last wait
}

// crowds counts a batch of a connection, and says whether the connection leaves the loop to
// others.
func (b *bustle) crowds(c *Conn, leaves int) bool {
	if lastReader.Load() != c.input.number {
		lastReader.Store(c.input.number)
		b.changes++
	}
	if !b.many && !c.calls {
		c.crowded = 0
		return false
	}
	c.calls = false
	c.crowded++
	return c.crowded >= leaves
}

// rest lets others run before the loop waits, if it is time to: see turn.
func (b *bustle) rest(changes int) {
	now := time.Now()
	if b.large && now.Sub(b.gave) >= turnTime {
		giveWay()
		b.gave = now
	}
	b.large = false
	if now.Sub(b.at) >= loopTick {
		b.many = b.changes >= changes
		b.at, b.changes = now, 0
		runtime.Gosched()
	}
}

const (
	// sweepEvery is how long a connection is idle, or up to twice that, before it comes home.
	sweepEvery = time.Second
	// sweepHome bounds the connections that come home at once.
	sweepHome = 1000
)

// sweep calls idle connections home, now and then.
func (l *loop) sweep() {
	every := time.NewTicker(sweepEvery)
	defer every.Stop()
	for {
		select {
		case <-l.halted:
			return
		case <-every.C:
			l.callHome()
		}
	}
}

// callHome calls the connections home that have been idle since the last time. Of those that
// are home it makes the send buffer small.
func (l *loop) callHome() {
	home := 0
	l.server.each(func(c *Conn) {
		if n := c.batches.Load(); n != c.swept {
			c.swept = n
		} else if n > 0 && home < sweepHome && c.comesHome() {
			home++
		} else {
			c.socket.shrinkIdle()
		}
	})
}
