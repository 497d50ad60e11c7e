package peer

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Server serves other nodes.
type Server struct {
	id  *Identity
	log *slog.Logger
	rpc *rpc.Server
	// handler makes what serves a process that has been greeted.
	handler func(from kv.Process, purpose Purpose) rpc.Handler
	refused func(node kv.NodeID, err error)

	mu       sync.Mutex
	sessions map[sessionKey]*session // the newest of each
}

type sessionKey struct {
	node    kv.NodeID
	purpose Purpose
}

// NewServer returns a server that hands each process to a handler once it has
// been greeted, and tells refused whom it did not accept.
func NewServer(id *Identity, limits rpc.Limits, log *slog.Logger, handler func(kv.Process, Purpose) rpc.Handler, refused func(kv.NodeID, error)) *Server {
	s := &Server{id: id, log: log, handler: handler, refused: refused, sessions: map[sessionKey]*session{}}
	s.rpc = rpc.NewServer(limits, log, func(net.Conn) (rpc.Handler, error) {
		return &session{server: s}, nil
	})
	return s
}

// Serve accepts connections until ctx ends; see rpc.Server.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error { return s.rpc.Serve(ctx, ln) }

// Stats counts what happened to connections.
func (s *Server) Stats() rpc.Stats { return s.rpc.Stats() }

// session is one connection from another node: first the greeting, then
// whatever its purpose's handler serves.
type session struct {
	server   *Server
	conn     *rpc.Conn
	key      sessionKey
	inner    rpc.Handler // nil before the greeting
	begun    int64       // wall clock when the batch with the greeting came
	replaced atomic.Bool
}

func (s *session) Batch() {
	if s.inner != nil {
		s.inner.Batch()
	} else {
		s.begun = s.server.id.Clock.Read().Wall
	}
}

func (s *session) Served() {
	if s.inner != nil {
		s.inner.Served()
	}
}

// Serve greets, and passes on what comes after.
func (s *session) Serve(c *rpc.Conn, frames [][]byte) error {
	if s.replaced.Load() {
		return fmt.Errorf("a newer connection of %s has come", s.key.node)
	}
	if s.inner != nil {
		return s.inner.Serve(c, frames)
	}
	if err := s.greet(c, frames[0]); err != nil {
		return err
	}
	s.inner.Batch() // Served follows
	if len(frames) == 1 {
		return nil
	}
	return s.inner.Serve(c, frames[1:])
}

// greet answers the first frame. What cannot be accepted is told why, and ends
// the connection.
func (s *session) greet(c *rpc.Conn, frame []byte) error {
	var q wire.Request
	var h wire.PeerHello
	if err := wire.DecodeRequest(frame, &q); err != nil {
		return err
	}
	var why error
	switch {
	case q.Op != wire.OpPeerHello:
		why = fmt.Errorf("say PEER_HELLO first; this is the port for sidecars, apps use the socket")
	case q.Body == nil:
		why = fmt.Errorf("PEER_HELLO has no body")
	default:
		why = wire.UnmarshalBody(q.Body, &h)
	}
	id := s.server.id
	if why == nil {
		why = id.check(&h, s.begun-maxTravel, id.Clock.Read().Wall)
	}
	purpose := Purpose(h.Purpose)
	if why == nil && purpose != Poll && purpose != Call {
		why = fmt.Errorf("purpose %q is unknown", h.Purpose)
	}
	if why != nil {
		s.server.refused(kv.NodeID(h.From.Node), why)
		c.Out = wire.AppendError(c.Out, q.ID, wire.Errorf(wire.Unauthorized, "%v", why))
		return fmt.Errorf("%w %s: %w", ErrRefused, h.From.Node, why)
	}
	from := kv.Process{Node: kv.NodeID(h.From.Node), Epoch: kv.Epoch(h.From.Epoch)}
	id.heed(&h)
	s.conn, s.key = c, sessionKey{from.Node, purpose}
	s.inner = s.server.handler(from, purpose)
	s.server.replace(s)
	answer := id.hello(purpose)
	body, err := wire.MarshalBody(&answer)
	if err != nil {
		return err
	}
	c.Out = wire.AppendReply(c.Out, wire.OpPeerHello, &wire.Reply{ID: q.ID, Body: body})
	return nil
}

// maxTravel is how long a greeting may have travelled, in milliseconds, before
// its clock counts as behind.
const maxTravel = 500

// replace makes a session the one of its node and purpose; an older one ends,
// and what still comes on it is not served.
func (s *Server) replace(n *session) {
	s.mu.Lock()
	old := s.sessions[n.key]
	s.sessions[n.key] = n
	s.mu.Unlock()
	if old != nil {
		old.replaced.Store(true)
		old.conn.Kill()
	}
}

func (s *session) Gone() {}

// Oversized ends the connection: no peer sends such a frame.
func (s *session) Oversized(*rpc.Conn, []byte, int, error) {}

// Close ends the session.
func (s *session) Close(err error) {
	s.server.mu.Lock()
	if s.server.sessions[s.key] == s {
		delete(s.server.sessions, s.key)
	}
	s.server.mu.Unlock()
	if s.inner != nil {
		s.inner.Close(err)
	}
}
