package httpd

import (
	"net"
	"slices"
	"sync"

	"github.com/cachesidecar/cachesidecar/internal/quota"
)

// streams are the event streams that are open. One more than the most ends the oldest of the
// address that has the most, so that no address can hold all of them.
type streams struct {
	mu   sync.Mutex
	open []*stream // oldest first
}

type stream struct {
	address string
	ended   chan struct{} // closed: another one has its place
}

// enter returns a stream for a client at an address and port.
func (l *streams) enter(client string, most int) *stream {
	address, _, _ := net.SplitHostPort(client)
	s := &stream{address, make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open = append(l.open, s); len(l.open) > most {
		at := quota.OldestOfMost(l.open, func(s *stream) string { return s.address })
		close(l.open[at].ended)
		l.open = slices.Delete(l.open, at, at+1)
	}
	return s
}

// leave gives the stream's place back, if it still has it.
func (l *streams) leave(s *stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at := slices.Index(l.open, s); at >= 0 {
		l.open = slices.Delete(l.open, at, at+1)
	}
}
