package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Server serves other nodes.
type Server struct {
	id       *Identity
	log      *slog.Logger
	creds    func() *Credentials
	rpc      *server.Server
	listener atomic.Pointer[listener] // nil before Serve
	// handler returns the handler for a process that has been greeted.
	handler func(from kv.Process, purpose Purpose) server.Handler
	refused func(node kv.NodeID, err error)

	mu      sync.Mutex
	greeted map[*session]struct{} // one of each node and purpose, and older ones that have calls in flight
}

// NewServer returns a server that gives each process to a handler once it has been
// greeted. It calls refused for each node that it did not accept. With creds it speaks
// TLS only, with the credentials that are in use when a connection arrives.
func NewServer(id *Identity, creds func() *Credentials, limits server.Limits, log *slog.Logger,
	handler func(kv.Process, Purpose) server.Handler, refused func(kv.NodeID, error)) *Server {
	s := &Server{
		id: id, log: log, creds: creds, handler: handler, refused: refused, greeted: map[*session]struct{}{},
	}
	limits.MaxFirstFrame, limits.MaxInFlight = MaxGreeting, MaxCalls
	s.rpc = server.New(limits, log, func(nc net.Conn) (server.Handler, error) {
		a := s.listener.Load().arrivalOf(nc)
		if a == nil {
			return nil, errLate
		}
		return &session{server: s, arrival: a}, nil
	})
	return s
}

var errLate = fmt.Errorf("it was not greeted within %v", greetWithin)

// Serve accepts connections until ctx ends; see server.Server. Call it once.
func (srv *Server) Serve(ctx context.Context, ln net.Listener) error {
	d := newListener(srv.rpc.Sparing(ln), srv.creds, srv.log)
	srv.listener.Store(d)
	d.open()
	defer func() { _ = d.Close() }()
	return srv.rpc.Serve(ctx, d)
}

// Stats returns the counts so far.
func (srv *Server) Stats() cachesidecar.LinkStats {
	r := srv.rpc.Stats()
	st := cachesidecar.LinkStats{Open: r.Open, Accepted: r.Accepted, Rejected: r.Rejected, BadFrames: r.BadFrames}
	if d := srv.listener.Load(); d != nil {
		c := &d.counts
		st.Ungreeted, st.Late, st.Shed = int64(d.ungreeted()), c.late.Load(), c.shed.Load()
		st.Handshakes, st.Failed = c.handshakes.Load(), c.failed.Load()
	}
	st.Greeted = max(0, st.Open-st.Ungreeted)
	return st
}

// session is one connection from another node: first the greeting, then the requests
// that the handler of its purpose serves.
type session struct {
	server   *Server
	arrival  *arrival
	conn     *server.Conn
	from     kv.Process
	purpose  Purpose
	inner    server.Handler // nil before the greeting
	begun    int64          // wall clock in ms when the batch with the greeting arrived
	replaced atomic.Bool
	gone     atomic.Bool // the other side sends nothing more
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

// Serve handles the greeting, and passes later frames to the handler.
func (s *session) Serve(c *server.Conn, frames [][]byte) error {
	if s.replaced.Load() {
		return fmt.Errorf("a newer connection of %s has come", s.from.Node)
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

// greet answers the first frame. If it cannot be accepted, the answer says why and the
// connection ends.
func (s *session) greet(c *server.Conn, frame []byte) error {
	var q wire.Request
	var h wire.PeerHello
	if err := wire.DecodeRequest(frame, &q); err != nil {
		return err
	}
	purpose, why := s.checkGreeting(&q, &h)
	if why != nil {
		node := h.From.Node
		if p := s.arrival.proof; p != nil && !p.is(node) {
			node = kv.NodeID(p.names[0]) // the proven name, whatever the greeting says
		} else if len(node) > wire.MaxNameLen {
			node = ""
		}
		s.server.refused(node, why)
		c.Out = wire.AppendError(c.Out, q.ID, wire.Errorf(wire.Unauthorized, "%v", why))
		return fmt.Errorf("%w: %w", ErrRefused, why)
	}
	if !s.server.listener.Load().leave(s.arrival) {
		return errLate
	}
	c.AllowMaxFrame()
	id := s.server.id
	from := h.From
	id.merge(&h)
	s.conn, s.from, s.purpose = c, from, purpose
	s.inner = s.server.handler(from, purpose)
	c.Account().Move(quota.NodeTenant(string(from.Node)), string(purpose))
	s.server.replace(s)
	answer := id.hello(purpose)
	body := wire.MarshalBody(&answer)
	c.Out = wire.AppendReply(c.Out, wire.OpPeerHello, &wire.Reply{ID: q.ID, Body: body})
	return nil
}

// checkGreeting checks a greeting. It returns its purpose, or why it cannot be accepted.
func (s *session) checkGreeting(q *wire.Request, h *wire.PeerHello) (Purpose, error) {
	switch {
	case q.Op != wire.OpPeerHello:
		return "", errors.New("say PEER_HELLO first; this is the port for sidecars, apps use the socket")
	case q.Body == nil:
		return "", errors.New("PEER_HELLO has no body")
	}
	id := s.server.id
	if err := id.read(q.Body, h); err != nil {
		return "", err
	}
	if err := id.check(h, s.begun-maxTravel, id.Clock.Read().Wall); err != nil {
		return "", err
	}
	if p := s.arrival.proof; p != nil && !p.is(h.From.Node) {
		return "", fmt.Errorf("it calls itself %s, and its certificate is of %s",
			quotedIfNeeded(string(h.From.Node)), shownAll(p.names))
	}
	if p := s.arrival.proof; p != nil && !s.server.creds().trusted(p.root) {
		return "", errors.New("its key was withdrawn just now")
	}
	purpose := Purpose(h.Purpose)
	if purpose != Poll && purpose != Call && purpose != Meet {
		return "", fmt.Errorf("purpose %s is unknown", shown(h.Purpose))
	}
	return purpose, nil
}

// maxTravel is how long a greeting may be on its way before its clock counts as behind,
// in milliseconds.
const maxTravel = 500

// replace makes n the session of its node and purpose. Later requests on the older
// session are not served. If the older session is of the same process, as when the
// process renews its connections, the requests that were already served are answered;
// see renew.go.
func (srv *Server) replace(n *session) {
	srv.mu.Lock()
	var old *session
	for o := range srv.greeted {
		if o.from.Node == n.from.Node && o.purpose == n.purpose && !o.replaced.Load() {
			old = o
			o.replaced.Store(true)
		}
	}
	srv.greeted[n] = struct{}{}
	srv.mu.Unlock()
	if old == nil {
		return
	}
	if old.from != n.from {
		old.conn.Kill()
		return
	}
	if h, ok := old.inner.(Successor); ok {
		h.Succeeded(n.inner)
	}
	if !old.gone.Load() {
		// The other side should end its old connection in order. If it does not, it has
		// lost that connection.
		time.AfterFunc(goneWithin, func() {
			if !old.gone.Load() {
				old.conn.Kill()
			}
		})
	}
}

// Successor is a Handler that keeps something for the process that it serves.
type Successor interface {
	// Succeeded passes it on to the handler of that process's next connection, which
	// has not begun to serve. Calls of the older connection may be in flight.
	Succeeded(next server.Handler)
}

// goneWithin is how long a replaced connection may stay without an orderly end.
const goneWithin = time.Second

// renewWithin is how long a connection may stay when its root is not accepted any more.
// In this time its other side replaces it.
const renewWithin = 5 * time.Second

// Renew closes the connections whose roots are not accepted by the credentials in use.
// It returns at once; the other sides have renewWithin to replace their connections.
func (srv *Server) Renew() {
	if srv.creds == nil {
		return
	}
	time.AfterFunc(renewWithin, func() {
		creds := srv.creds()
		srv.mu.Lock()
		defer srv.mu.Unlock()
		for o := range srv.greeted {
			if !creds.trusted(o.arrival.proof.root) {
				o.conn.Kill()
			}
		}
	})
}

// Gone notes that the other side sends nothing more. What the handler keeps for the
// process may already belong to the next connection.
func (s *session) Gone() { s.gone.Store(true) }

// Oversized ends the connection, because no peer sends such a frame. If the frame is a
// TLS handshake, the answer says that this host does not speak TLS.
func (s *session) Oversized(c *server.Conn, _ []byte, length int, _ error) {
	if s.inner == nil && length>>24 == tlsHandshake {
		c.Out = wire.AppendError(c.Out, 0, wire.Errorf(wire.Unauthorized,
			"this host has no cluster key, and does not speak TLS"))
	}
}

// Account returns the account of a connection that has not been greeted.
func (s *session) Account(b *quota.Budget) *quota.Account {
	return b.Open("hosts that have not greeted", "")
}

// Close ends the session.
func (s *session) Close(err error) {
	if d := s.server.listener.Load(); d != nil {
		d.leave(s.arrival)
	}
	s.server.mu.Lock()
	delete(s.server.greeted, s)
	s.server.mu.Unlock()
	if s.inner != nil {
		s.inner.Close(err)
	}
}

// Read parses the body of a request from a process that was greeted. If the body names
// its sender, the name must be that process; otherwise the request is UNAUTHORIZED and
// nothing in it counts. All bodies from other sidecars must be read with Read.
func Read(from kv.Process, q *wire.Request, v any) *wire.Error {
	if err := wire.UnmarshalBody(q.Body, v); err != nil {
		return wire.Errorf(wire.BadRequest, "%s: %v", q.Op, err)
	}
	m, ok := v.(wire.NamesSender)
	if !ok {
		return nil
	}
	for _, p := range m.Senders() {
		if p != from {
			return wire.Errorf(wire.Unauthorized, "%s in the name of %s: this connection is of %s, "+
				"and each process speaks for itself alone", q.Op, quotedIfNeeded(string(p.Node)), from)
		}
	}
	return nil
}
