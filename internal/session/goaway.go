package session

import (
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// goaway tells apps that this sidecar is about to close their connections. An app asks
// for it with LEAVING, whose answer waits until then. A LEAVING that waits is an entry of
// a map: it has no goroutine, and takes no place of other requests.
type goaway struct {
	mu      sync.Mutex
	begun   bool
	waiting map[*Handler]asked // LEAVINGs without an answer
	told    map[*Handler]bool  // connections that were told, and have not ended
	moved   chan struct{}      // closed when told is empty; nil before the sidecar leaves
}

// asked is a LEAVING that waits.
type asked struct {
	conn *server.Conn
	id   uint64
}

// leaving answers LEAVING once this sidecar is about to close.
func (c *Handler) leaving(conn *server.Conn) {
	f := &c.Sessions.goaway
	f.mu.Lock()
	_, again := f.waiting[c]
	switch {
	case again:
	case f.begun:
		f.told[c] = true
	default:
		if f.waiting == nil {
			f.waiting = map[*Handler]asked{}
		}
		f.waiting[c] = asked{conn, c.Req.ID}
	}
	begun := f.begun
	f.mu.Unlock()
	switch {
	case again:
		c.answerError(conn, wire.Errorf(wire.BadRequest, "a LEAVING of this connection waits: one is enough"))
	case begun:
		c.Reply = wire.Reply{}
		c.appendReply(conn)
	}
}

// gone takes a connection whose client sends nothing more.
func (f *goaway) gone(c *Handler) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.waiting, c)
	delete(f.told, c)
	f.checkLocked()
}

func (f *goaway) checkLocked() {
	if f.moved != nil && len(f.told) == 0 {
		close(f.moved)
		f.moved = nil
	}
}

// Leave tells all apps that wait with LEAVING to move on. It returns how many they are,
// and how many of their connections have not ended after most. Apps that come later are
// told at once. New connections must not be accepted any more.
func (d *Sessions) Leave(most time.Duration) (told, stay int) {
	f := &d.goaway
	moved := make(chan struct{})
	var a transport.Answers
	var frame []byte
	f.mu.Lock()
	f.begun, f.told, f.moved = true, make(map[*Handler]bool, len(f.waiting)), moved
	for c, q := range f.waiting {
		f.told[c] = true
		frame = wire.AppendReply(frame[:0], wire.OpLeaving, &wire.Reply{ID: q.id})
		q.conn.Tell(&a, frame)
	}
	told, f.waiting = len(f.told), nil
	f.checkLocked()
	f.mu.Unlock()
	a.Write()
	d.Engine.Watches.Interrupt()
	t := time.NewTimer(most)
	defer t.Stop()
	select {
	case <-moved:
	case <-t.C:
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return told, len(f.told)
}
