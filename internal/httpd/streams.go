package httpd

import (
	"slices"
	"sync"

	"github.com/cachesidecar/cachesidecar/internal/quota"
)

// streams are the event streams that are open. One more than the most ends the oldest of the
// user that has the most, or of the address, as for connections: see gate.
type streams struct {
	mu   sync.Mutex
	open []*stream // oldest first
}

type stream struct {
	owner string
	ended chan struct{} // closed: another one has its place
}

// enter returns a stream of an owner.
func (l *streams) enter(owner string, most int) *stream {
	s := &stream{owner, make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open = append(l.open, s); len(l.open) > most {
		at := quota.OldestOfMost(l.open, func(s *stream) string { return s.owner })
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
