package sidecar

import (
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/httpd"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
)

// Sidecar is one host's part of the cache.
type Sidecar struct {
	engine    *engine.Engine
	cfg       Config // of the start
	keys      peer.KeyWatch
	server    *server.Server // of the socket
	telemetry *telemetry.Telemetry
	words     readyWords
	started   time.Duration // on the boot clock
	sessions  *session.Sessions
	ready     chan struct{} // closed when the socket and HTTP are served
	path      string        // of the socket; set before ready is closed
	socket    socketState
	passed    []*os.File // by systemd: listeners
	kept      keptMemory
	memcached memcachedDoor
	files     fileShares                   // shares of the file descriptors
	http      atomic.Pointer[httpd.Server] // nil: HTTP is off
	ending    *ending
	followers followers

	applying sync.Mutex    // one Apply at a time; guards present
	present  Config        // in effect: cfg, with what Apply has changed
	weight   atomic.Uint32 // present.Weight
	aloneOK  atomic.Bool   // present.AloneOK

	use    sync.RWMutex   // guards the fields below; never held during a wait
	inUse  sync.WaitGroup // calls that use the store, except Run
	back   *layer         // of Run, while it takes more goroutines
	closed bool
	ran    bool
}

// readyWords are the last words of /readyz while the host was ready.
type readyWords struct {
	mu   sync.Mutex
	at   time.Duration // on the boot clock
	text string
}

// Ready returns a channel that is closed when the socket and HTTP are served.
func (s *Sidecar) Ready() <-chan struct{} { return s.ready }

// Ending returns a channel that is closed when Run begins to end: its context has ended,
// or a drain was to end it.
func (s *Sidecar) Ending() <-chan struct{} { return s.ending.begun }

// SocketPath returns the path at which apps connect. It is valid once Ready is closed.
func (s *Sidecar) SocketPath() string { return s.path }

// HeapLimit returns a limit in bytes for the memory of Go's runtime
// (debug.SetMemoryLimit). The limit suits a process that only runs this sidecar. L2 is not in
// the runtime's memory.
func (s *Sidecar) HeapLimit() int64 {
	s.applying.Lock()
	defer s.applying.Unlock()
	sizes, _ := s.present.withMemory()
	return sizes.need().heap
}
