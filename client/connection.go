package client

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/calls"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// slot is the place of one connection.
type slot struct {
	rpc.Redialer
	shared  *shared
	greeted atomic.Pointer[greeting]
	lent    atomic.Pointer[lent]  // used in place of its own connection; nil: none
	doubt   atomic.Pointer[doubt] // nil: none
}

// lent is another slot's connection, used for a while; see shared.connect.
type lent struct {
	by   *slot
	conn *rpc.Client
}

// borrows reports whether the slot's latest calls went over another slot's connection,
// which still takes calls.
func (sl *slot) borrows() bool {
	l := sl.lent.Load()
	return l != nil && l.conn.Err() == nil && !l.conn.Retiring()
}

// greeting is what the sidecar has sent about itself on the latest connection.
type greeting struct {
	conn     *rpc.Client
	welcome  wire.Welcome
	oneClock bool // the sidecar and this process have the same boot clock
}

// welcomeOf returns the sidecar's welcome on a connection, or nil if that connection is
// not the latest.
func (sl *slot) welcomeOf(conn *rpc.Client) *wire.Welcome {
	if g := sl.greeted.Load(); g != nil && g.conn == conn {
		return &g.welcome
	}
	return nil
}

// oneClock reports whether the sidecar at the other end of a connection has the same boot
// clock as this process.
func (sl *slot) oneClock(conn *rpc.Client) bool {
	g := sl.greeted.Load()
	return g != nil && g.conn == conn && g.oneClock
}

func newSlot(c *shared) *slot {
	s := &slot{shared: c}
	s.Dial, s.Eager = s.dial, c.moving
	return s
}

// get returns a connection that was alive when last checked, or makes one.
func (sl *slot) get(ctx context.Context) (*rpc.Client, error) {
	c, err := sl.Get(ctx)
	if errors.Is(err, rpc.ErrRedialerClosed) {
		err = cachesidecar.ErrClosed
	}
	return c, err
}

// again reports whether another attempt may help after err, since the sidecar is being
// started again. Before that it waits.
func (sl *slot) again(ctx context.Context, err error) bool {
	return errors.Is(err, cachesidecar.ErrUnavailable) && sl.shared.moving() && kv.Sleep(ctx, moveAgain)
}

// moveAgain is the time between two attempts to connect to a sidecar that is being started
// again.
const moveAgain = 5 * time.Millisecond

// follow makes the client move on when the sidecar says that it closes: calls in flight
// get their answers, and later ones go over another connection.
func (sl *slot) follow(c *rpc.Client, w *wire.Welcome) error {
	return c.Await(&wire.Request{Op: wire.OpLeaving}, func(frame []byte) {
		var r wire.Reply
		if wire.DecodeReply(wire.OpLeaving, frame, &r) == nil && r.Status == wire.OK {
			sl.shared.movesAt.Store(max(1, int64(sl.shared.clock.Read().Boot)))
			c.Leave()
		}
	})
}

// dial finds the socket, connects and sends HELLO.
func (sl *slot) dial(ctx context.Context) (*rpc.Client, error) {
	path, err := unixsock.Find(sl.shared.cfg.Socket)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", cachesidecar.ErrUnavailable, err)
	}
	token := sl.shared.cfg.Token
	if sl.shared.cfg.TokenFile != "" {
		if token, err = ReadToken(sl.shared.cfg.TokenFile); err != nil {
			return nil, err
		}
	}
	c, err := sl.greet(ctx, path, token)
	ended := errors.Is(err, rpc.ErrClosed) && !errors.Is(err, rpc.ErrNoID)
	if (ended || errors.Is(err, rpc.ErrNotSent)) && ctx.Err() == nil {
		// A sidecar that ends closes what it has just accepted. If systemd keeps the socket,
		// the next connection waits there for the next sidecar.
		c, err = sl.greet(ctx, path, token)
	}
	return c, err
}

// greet connects to the socket at path and sends HELLO.
func (sl *slot) greet(ctx context.Context, path, token string) (*rpc.Client, error) {
	timeout := sl.shared.cfg.DialTimeout
	if sl.shared.moving() { // the socket may be there before the sidecar is
		timeout = max(timeout, moveFor)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	nc, err := unixsock.Dial(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("%w: cannot connect to the sidecar: %w", cachesidecar.ErrUnavailable, err)
	}
	c := rpc.NewClient(nc, rpc.ClientConfig{MaxCalls: sl.shared.cfg.MaxCalls, Direct: true})
	before := sl.shared.clock.Read().Boot
	call, err := c.Do(ctx, timeout, hello(sl.shared, token))
	if err == nil {
		var w wire.Welcome
		if err = decodeBody(wire.OpHello, call.Frame(), &w); err == nil {
			sl.greeted.Store(&greeting{c, w, sameClock(w.Boot, before, sl.shared.clock.Read().Boot)})
			err = sl.follow(c, &w)
		}
		if err == nil {
			sl.shared.welcome(path, token, &w)
		}
		if err == nil && c.Retiring() { // it ends already
			err = fmt.Errorf("%w: %w", cachesidecar.ErrUnavailable, rpc.ErrNotSent)
		}
		c.Release(call)
	} else if !errors.Is(err, context.Canceled) {
		if errors.Is(err, rpc.ErrNoAnswer) {
			err = context.DeadlineExceeded // whichever of the two timers ended the wait
		}
		err = fmt.Errorf("%w: no HELLO from the sidecar at %s: %w", cachesidecar.ErrUnavailable, path, err)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// hello returns the HELLO of a client.
func hello(s *shared, token string) *wire.Request {
	return &wire.Request{Op: wire.OpHello, Hello: wire.Hello{
		Versions: wire.Versions, Client: s.cfg.Name, Token: token, Namespace: s.cfg.Namespace,
	}}
}

// askBody makes a call over a connection and decodes the body of the answer.
func askBody(ctx context.Context, c *rpc.Client, timeout time.Duration, q *wire.Request, body any) error {
	call, err := c.Do(ctx, timeout, q)
	if err != nil {
		return callError(err)
	}
	defer c.Release(call)
	return decodeBody(q.Op, call.Frame(), body)
}

// decodeBody decodes the body of an answer.
func decodeBody(op wire.Op, frame []byte, body any) error {
	var r wire.Reply
	err := wire.DecodeReply(op, frame, &r)
	if err == nil {
		if err := calls.Err(&r); err != nil {
			return err
		}
		err = wire.UnmarshalBody(r.Body, body)
	}
	if err != nil {
		return fmt.Errorf("%w: the sidecar's answer: %w", cachesidecar.ErrInternal, err)
	}
	return nil
}

// fits returns ErrTooLarge if a value is longer than the sidecar allows. Before HELLO
// that limit is not known.
func (sl *slot) fits(value []byte) error {
	g := sl.greeted.Load()
	if g == nil {
		return nil
	}
	if most := g.welcome.Limits.Value; most > 0 && len(value) > most {
		return fmt.Errorf("%w: the value has %d bytes, the sidecar's max_value is %d: split it, or raise max_value",
			cachesidecar.ErrTooLarge, len(value), most)
	}
	return nil
}

// connect returns a slot's connection. If that connection cannot be made, for example
// because the sidecar has reached its connection limit, connect returns another slot's
// live connection. It continues to return that one until no call is in flight on it: a
// call that was sent there and given up may still be executed, and calls of one key must
// keep their order.
func (s *shared) connect(ctx context.Context, want *slot) (*slot, *rpc.Client, error) {
	if l := want.lent.Load(); l != nil {
		if l.conn.Err() == nil && l.conn.InFlight() > 0 && !l.conn.Retiring() {
			return l.by, l.conn, nil
		}
		want.lent.CompareAndSwap(l, nil)
	}
	conn, err := want.get(ctx)
	if err == nil || !errors.Is(err, cachesidecar.ErrUnavailable) {
		return want, conn, connectError(err)
	}
	for _, other := range s.slots {
		if conn := other.Live(); conn != nil {
			want.lent.Store(&lent{other, conn})
			return other, conn, nil
		}
	}
	return want, nil, err
}
