package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// MaxCalls limits the calls in flight on one connection between nodes, on both of its
// sides. A server that served fewer at once would stop reading, and calls that need not
// wait would wait behind calls that do. It is as many requests as may wait on a host: the shares of
// the apps there are the bound that is met first.
const MaxCalls = 1 << 16

// dialTimeout is the time for connecting and greeting.
const dialTimeout = 500 * time.Millisecond

// PoolConfig configures a Pool. Zero values mean the defaults.
type PoolConfig struct {
	Identity *Identity
	// Credentials returns the credentials in use; see Renew. Nil: connections are not
	// encrypted, and neither side proves its name.
	Credentials func() *Credentials
	// Dial connects to an address. Default: TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Unheard closes a connection if the other machine acknowledges nothing for this
	// long after something was sent. Default: the system's, which is minutes. Linux
	// only.
	Unheard time.Duration
	// Budget limits the memory of requests and answers in flight; nil: no limit.
	Budget *quota.Budget
	// Greeted is called when a node has answered the greeting (err is nil) or one side
	// has refused (err says why). It must not block.
	Greeted func(node kv.NodeID, answered kv.Process, err error)
}

// Pool has this node's connections to other nodes. It is safe for concurrent use.
type Pool struct {
	cfg PoolConfig

	ends context.Context // with Close
	end  context.CancelFunc

	mu      sync.Mutex
	remotes map[kv.NodeID]*remote
	closed  bool
	renewal context.CancelFunc // ends the last renewal; nil before the first
	tasks   sync.WaitGroup     // renewals, and connections that are being closed

	dialTimeout, renewTimeout time.Duration
}

// remote is another node: its current process and its connections.
type remote struct {
	id      kv.Process
	address string
	poll    rpc.Redialer
	call    rpc.Redialer
}

// NewPool returns a pool without connections.
func NewPool(cfg PoolConfig) *Pool {
	if cfg.Dial == nil {
		d := &net.Dialer{}
		cfg.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", address)
		}
	}
	p := &Pool{cfg: cfg, remotes: map[kv.NodeID]*remote{}, dialTimeout: dialTimeout, renewTimeout: renewTimeout}
	p.ends, p.end = context.WithCancel(context.Background())
	return p
}

// Set registers a process and its address. It closes the connections to the process
// that had the same name, or the same process at another address.
func (p *Pool) Set(id kv.Process, address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.remotes[id.Node]
	if p.closed || old != nil && old.id == id && old.address == address {
		return
	}
	r := &remote{id: id, address: address}
	r.poll.Dial = func(ctx context.Context) (*rpc.Client, error) { return p.dial(ctx, r, Poll) }
	r.call.Dial = func(ctx context.Context) (*rpc.Client, error) { return p.dial(ctx, r, Call) }
	p.remotes[id.Node] = r
	if old != nil {
		p.tasks.Go(old.close) // may wait for a dial of its own; Close waits for it
	}
}

// Remove forgets a process and closes its connections.
func (p *Pool) Remove(id kv.Process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.remotes[id.Node]; r != nil && r.id == id {
		delete(p.remotes, id.Node)
		p.tasks.Go(r.close) // as in Set
	}
}

// Leave forgets a process that ends in order: it answers the calls that are under way.
// Their connection is closed after them.
func (p *Pool) Leave(id kv.Process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.remotes[id.Node]; r != nil && r.id == id {
		delete(p.remotes, id.Node)
		p.tasks.Go(func() {
			r.poll.Close()
			r.call.Leave(p.ends)
			r.call.Close()
		})
	}
}

// Close closes all connections, and waits until renewals and earlier closings have ended.
// Later calls fail.
func (p *Pool) Close() {
	p.mu.Lock()
	remotes := p.remotes
	p.remotes, p.closed = map[kv.NodeID]*remote{}, true
	p.end()
	if p.renewal != nil {
		p.renewal()
	}
	p.mu.Unlock()
	for _, r := range remotes {
		r.close()
	}
	p.tasks.Wait()
}

func (r *remote) close() {
	r.poll.Close()
	r.call.Close()
}

func (r *remote) redialer(purpose Purpose) *rpc.Redialer {
	if purpose == Poll {
		return &r.poll
	}
	return &r.call
}

// ErrUnknown means that the pool has no address of the process. Nothing was sent.
var ErrUnknown = errors.New("unknown process")

// Answer is the result of a call. Its bytes are valid until Release.
type Answer struct {
	wire.Reply
	client *rpc.Client
	call   *rpc.Call
}

// Release gives the answer's memory back. It may be called twice.
func (ans *Answer) Release() {
	if ans.client != nil {
		ans.client.Release(ans.call)
		ans.client, ans.call = nil, nil
	}
}

// Do makes one call to a process. It returns when ctx ends, or after timeout at the
// latest. The caller must release the answer, also after an error. An answer with an
// error status is not an error of Do.
func (p *Pool) Do(ctx context.Context, id kv.Process, purpose Purpose, timeout time.Duration,
	q *wire.Request, a *Answer) error {
	for {
		c, left, err := p.Connect(ctx, id, purpose, timeout)
		if err != nil {
			return err
		}
		timeout = left
		q.TimeoutMS = uint32(max(timeout.Milliseconds(), 1))
		a.client = c
		if a.call, err = c.Do(ctx, timeout, q); errors.Is(err, rpc.ErrRetiring) {
			a.Release()
			continue // a new connection has taken its place
		} else if err != nil {
			return err
		}
		if err := a.call.Decode(q, &a.Reply); err != nil {
			return fmt.Errorf("the answer of %s to %s: %w", id, q.Op, err)
		}
		return p.Admit(id, a.NewestVersion())
	}
}

// Ask makes one call on the connection for polls, with a message as its body, and decodes the
// body of the answer into answer, if that is not nil. An answer with an error status is an
// error.
func (p *Pool) Ask(ctx context.Context, id kv.Process, timeout time.Duration,
	op wire.Op, message, answer any) error {
	var a Answer
	defer a.Release()
	err := p.Do(ctx, id, Poll, timeout, &wire.Request{Op: op, Body: wire.MarshalBody(message)}, &a)
	if err == nil {
		err = a.Err()
	}
	if err == nil && answer != nil {
		err = wire.UnmarshalBody(a.Body, answer) // it copies the bytes
	}
	return err
}

// Admit returns an error that wraps ErrRefused if newest, the newest version in an
// answer of a process, is too far ahead. The caller must then ignore the answer.
func (p *Pool) Admit(id kv.Process, newest uint64) error {
	err := p.cfg.Identity.Ahead(id.Node, newest)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrRefused, err)
		p.cfg.Greeted(id.Node, id, err)
	}
	return err
}

// Connect returns the connection to a process, and makes it if there is none. It also
// returns how much of the timeout is left.
func (p *Pool) Connect(ctx context.Context, id kv.Process, purpose Purpose, timeout time.Duration) (
	c *rpc.Client, left time.Duration, err error) {
	r := p.remote(id)
	if r == nil {
		return nil, 0, fmt.Errorf("%w %s", ErrUnknown, id)
	}
	if c := r.redialer(purpose).Live(); c != nil {
		return c, timeout, nil
	}
	return r.connect(ctx, purpose, timeout)
}

// remote returns the entry of a process; nil if the process is not registered.
func (p *Pool) remote(id kv.Process) *remote {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.remotes[id.Node]; r != nil && r.id == id {
		return r
	}
	return nil
}

// Live returns the connection to a process, or nil. It does not make one.
func (p *Pool) Live(id kv.Process, purpose Purpose) *rpc.Client {
	r := p.remote(id)
	if r == nil {
		return nil
	}
	return r.redialer(purpose).Live()
}

// connect makes a connection. It returns how much of the timeout is left.
func (r *remote) connect(ctx context.Context, purpose Purpose, timeout time.Duration) (
	c *rpc.Client, left time.Duration, err error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c, err = r.redialer(purpose).Get(ctx)
	left = timeout - time.Since(began)
	if err == nil && left <= 0 {
		err = fmt.Errorf("%w to %s in time", errDial, r.id.Node)
	}
	return c, left, err
}

// Meet greets the process at an address and keeps no connection. It returns nil if the
// process is id. It returns ErrRefused if a process is there and one of the two refuses
// to talk to the other.
func (p *Pool) Meet(ctx context.Context, id kv.Process, address string) error {
	c, err := p.dial(ctx, &remote{id: id, address: address}, Meet)
	if err != nil {
		return err
	}
	return c.Close()
}

// NotExecuted reports whether a failed call was certainly not executed.
func NotExecuted(err error) bool {
	return errors.Is(err, ErrUnknown) || errors.Is(err, rpc.ErrDown) || errors.Is(err, rpc.ErrFull) ||
		errors.Is(err, rpc.ErrNotSent) || errors.Is(err, rpc.ErrRedialerClosed) || errors.Is(err, errDial)
}

var errDial = errors.New("cannot connect")

func (r *remote) dialError(err error) error {
	return fmt.Errorf("%w to %s at %s: %w", errDial, r.id.Node, r.address, err)
}

// dial connects to a node and greets it.
func (p *Pool) dial(ctx context.Context, r *remote, purpose Purpose) (*rpc.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, p.dialTimeout)
	defer cancel()
	c, err := p.open(ctx, r)
	if err != nil {
		return nil, err
	}
	return p.greetOrClose(ctx, c, r, purpose)
}

// open connects to a node. With credentials it also verifies the node's certificate.
func (p *Pool) open(ctx context.Context, r *remote) (*rpc.Client, error) {
	nc, err := p.cfg.Dial(ctx, r.address)
	if err != nil {
		return nil, r.dialError(err)
	}
	dropUnheard(nc, p.cfg.Unheard)
	if p.cfg.Credentials != nil {
		if nc, err = p.secure(ctx, nc, r); err != nil {
			return nil, r.dialError(err)
		}
	}
	return rpc.NewClient(nc, rpc.ClientConfig{
		MaxCalls: MaxCalls, Budget: p.cfg.Budget, Owner: quota.NodeTenant(string(r.id.Node)),
	}), nil
}

// secure does the TLS handshake.
func (p *Pool) secure(ctx context.Context, nc net.Conn, r *remote) (net.Conn, error) {
	creds := p.cfg.Credentials()
	s := transport.Secure(nc, func(below net.Conn) *tls.Conn {
		return tls.Client(below, creds.config(expect(r.id.Node)))
	})
	if err := s.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		err = fmt.Errorf("TLS: %w", err)
		return nil, p.reportMismatch(r, err)
	}
	return s, nil
}

// reportMismatch reports a failed attempt to connect as refused, with the remedy, if the
// credentials of one of the two sides are the cause.
func (p *Pool) reportMismatch(r *remote, err error) error {
	if remedy := mismatchRemedy(err); remedy != "" {
		err = fmt.Errorf("%w: %s and this host do not accept each other: %w: %s", ErrRefused, r.id.Node, err, remedy)
		p.cfg.Greeted(r.id.Node, kv.Process{}, err)
	}
	return err
}

// greetOrClose greets a node on a new connection, and closes the connection on failure.
func (p *Pool) greetOrClose(ctx context.Context, c *rpc.Client, r *remote, purpose Purpose) (*rpc.Client, error) {
	if err := p.greet(ctx, c, r, purpose); err != nil {
		_ = c.Close()
		return nil, r.dialError(err)
	}
	return c, nil
}

func (p *Pool) greet(ctx context.Context, c *rpc.Client, r *remote, purpose Purpose) error {
	id := p.cfg.Identity
	hello := id.hello(purpose)
	call, err := c.Do(ctx, p.dialTimeout, &wire.Request{Op: wire.OpPeerHello, Body: wire.MarshalBody(&hello)})
	if err != nil {
		c.Release(call)
		// In TLS 1.3 the other side rejects a certificate after this side's handshake.
		return p.reportMismatch(r, err)
	}
	defer c.Release(call)
	var reply wire.Reply
	if err := wire.DecodeReply(wire.OpPeerHello, call.Frame(), &reply); err != nil {
		return err
	}
	if reply.Status != wire.OK {
		err := fmt.Errorf("%w by %s: %s", ErrRefused, r.id.Node, trimmed(string(reply.Message)))
		p.cfg.Greeted(r.id.Node, kv.Process{}, err)
		return err
	}
	var answer wire.PeerHello
	if err := id.read(reply.Body, &answer); err != nil {
		return err
	}
	them := answer.From
	if err := id.check(&answer, hello.WallMS, id.Clock.Read().Wall); err != nil {
		err = fmt.Errorf("%w: %w", ErrRefused, err)
		p.cfg.Greeted(r.id.Node, them, err)
		return err
	}
	if them.Node != r.id.Node {
		return fmt.Errorf("%s answers there, %s was expected", shown(string(them.Node)), r.id)
	}
	id.merge(&answer)
	p.cfg.Greeted(r.id.Node, them, nil)
	if them != r.id {
		return fmt.Errorf("%s answers there, %s was expected", them, r.id)
	}
	return nil
}
