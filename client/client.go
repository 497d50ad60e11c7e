package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/plainfile"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Config of a Client. The zero value is right for most.
type Config struct {
	// Socket is the sidecar's. Default: $CACHESIDECAR_SOCKET, else the first
	// that is there of /run/cachesidecar, $XDG_RUNTIME_DIR/cachesidecar and
	// /tmp/cachesidecar-$UID.
	Socket string
	// Namespace of calls. Default "default".
	Namespace string
	// Name tells the sidecar's operators who this is. Default: none.
	Name string
	// Token is a secret that the sidecar's configuration names: it adds rights to
	// those of this process's user. Default: none.
	Token string
	// TokenFile has the token in place of Token. It is read for each connection, so
	// that a new token is found. Only this process's user, its group and root may
	// read it.
	TokenFile string
	// Conns is the number of connections. Default 2: calls of one key always
	// share one, and a second one keeps a second core of the sidecar busy.
	Conns int
	// DialTimeout is for one attempt to connect. Default 250 ms.
	DialTimeout time.Duration
	// RequestTimeout is for calls whose context has no deadline. Default 1 s.
	RequestTimeout time.Duration
	// LoadTimeout is for the function of a GetOrLoad. Default 30 s. What takes
	// longer than the sidecars' lease_time (10 s unless set) is returned, and
	// not kept.
	LoadTimeout time.Duration
	// WaitTimeout is how long a GetOrLoad waits for another process that loads
	// its key, before it calls its own function. Default 10 s; in steps of
	// RequestTimeout, of which there is at least one.
	WaitTimeout time.Duration
	// MaxCalls bounds the calls in flight of one connection; one more gets
	// ErrBusy. Default 1,024.
	MaxCalls int
	// MaxLoads bounds the keys that GetOrLoads ask for or load at one time; one
	// more gets ErrBusy. Default 4,096.
	MaxLoads int
	// FailClosed makes GetOrLoad return the error where the sidecar cannot be
	// reached, is too busy or does not answer in time. Default: it calls its
	// function, and what that returns is not kept.
	FailClosed bool
	// Lazy lets Dial succeed where no sidecar answers yet: the first call that
	// finds one connects.
	Lazy bool
	// NearCache keeps values in this process. Default: none.
	NearCache NearCache
}

func (c Config) withDefaults() Config {
	c.Conns = cmp.Or(c.Conns, 2)
	c.DialTimeout = cmp.Or(c.DialTimeout, 250*time.Millisecond)
	c.RequestTimeout = cmp.Or(c.RequestTimeout, time.Second)
	c.LoadTimeout = cmp.Or(c.LoadTimeout, 30*time.Second)
	c.WaitTimeout = cmp.Or(c.WaitTimeout, 10*time.Second)
	c.MaxCalls = cmp.Or(c.MaxCalls, 1024)
	c.MaxLoads = cmp.Or(c.MaxLoads, 4096)
	c.Namespace = cmp.Or(c.Namespace, "default")
	return c
}

// ReadToken returns the token in a file, as Config.TokenFile has it; "" is no file. An
// error says what to do about the file, and is ErrUnauthorized.
func ReadToken(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	b, err := plainfile.Secret(file, wire.MaxNameLen+2)
	token := strings.TrimRight(string(b), "\r\n")
	switch {
	case err != nil:
		return "", fmt.Errorf("%w: token file %s: %w", ErrUnauthorized, file, err)
	case token == "":
		return "", fmt.Errorf("%w: token file %s is empty: write the token into it", ErrUnauthorized, file)
	}
	return token, nil
}

// Client is a connection to the sidecar on this host.
type Client struct {
	*shared
	namespace []byte // nil is the connections' default
	space     *space // of the near cache; nil without one
}

// shared is what the views of a Client have in common.
type shared struct {
	cfg   Config
	slots []*slot
	clock kv.Clock
	turn  atomic.Uint32
	seed  maphash.Seed
	loads loads

	near   *near // nil without one
	closed context.Context
	close  context.CancelFunc
	tasks  sync.WaitGroup // the near cache's and the loads'
}

// Dial connects to the sidecar. An error says why that cannot be; with
// Config.Lazy, a sidecar that is not there is none.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	return dialWith(ctx, cfg, nil)
}

func dialWith(ctx context.Context, cfg Config, clock kv.Clock) (*Client, error) {
	if clock == nil {
		clock = kv.NewSystemClock()
	}
	if cfg.Token != "" && cfg.TokenFile != "" {
		return nil, fmt.Errorf("%w: Token and TokenFile are given: leave out one of them", ErrBadRequest)
	}
	s := &shared{cfg: cfg.withDefaults(), clock: clock, seed: maphash.MakeSeed(), loads: loads{keys: map[loadKey]*queue{}}}
	s.closed, s.close = context.WithCancel(context.Background())
	for range s.cfg.Conns {
		s.slots = append(s.slots, newSlot(&s.cfg, clock))
	}
	c := &Client{shared: s}
	if _, err := s.slots[0].get(ctx); err != nil && !(cfg.Lazy && errors.Is(err, ErrUnavailable)) {
		s.close()
		return nil, err
	}
	if cfg.NearCache != (NearCache{}) {
		var err error
		if s.near, err = newNear(cfg.NearCache, clock); err != nil {
			_ = c.Close()
			return nil, err
		}
		c.space = s.near.space(s.cfg.Namespace)
		f := newFeed(c, s.near.cfg.Bound/4)
		f.options = wire.All
		s.tasks.Go(func() { s.near.run(s.closed, f) }) // ends with Close, which waits
	}
	return c, nil
}

// InNamespace returns a view of the client with another namespace. It shares
// the client's connections and near cache; closing either closes both.
func (c *Client) InNamespace(name string) *Client {
	v := &Client{shared: c.shared, namespace: []byte(name)}
	if c.near != nil {
		v.space = c.near.space(name)
	}
	return v
}

// Close ends all connections, the near cache and every Watch. Calls in flight
// fail. The context of functions that load ends, and Close waits for them.
func (c *Client) Close() error {
	c.loads.close()
	c.shared.close()
	c.tasks.Wait()
	for _, s := range c.slots {
		s.Redialer.Close()
	}
	return nil
}

// slotFor returns the connection of a key: calls of one key keep their order.
func (s *shared) slotFor(key []byte) *slot {
	if len(s.slots) == 1 {
		return s.slots[0]
	}
	return s.slots[maphash.Bytes(s.seed, key)%uint64(len(s.slots))]
}

func (s *shared) anySlot() *slot { return s.slots[int(s.turn.Add(1))%len(s.slots)] }

// connect returns a slot's connection. Where that cannot be made, as when the sidecar
// has as many connections as it may, it returns another slot's that is there, and goes
// on with that one until no call of it is under way: what was sent there and given up
// may be executed yet, and calls of one key keep their order.
func (s *shared) connect(ctx context.Context, want *slot) (*slot, *rpc.Client, error) {
	if l := want.lent.Load(); l != nil {
		if l.conn.Err() == nil && l.conn.InFlight() > 0 {
			return l.by, l.conn, nil
		}
		want.lent.CompareAndSwap(l, nil)
	}
	conn, err := want.get(ctx)
	if err == nil || !errors.Is(err, ErrUnavailable) {
		return want, conn, err
	}
	for _, other := range s.slots {
		if conn := other.Live(); conn != nil {
			want.lent.Store(&lent{other, conn})
			return other, conn, nil
		}
	}
	return want, nil, err
}

// answer is what came of a call. Its bytes are good until release.
type answer struct {
	wire.Reply
	from *slot
	conn *rpc.Client
	call *rpc.Call
}

func (a *answer) release() {
	if a.conn != nil {
		a.conn.Release(a.call)
	}
}

// do makes one call. The caller releases the answer, also after an error.
func (c *Client) do(ctx context.Context, s *slot, q *wire.Request) (a answer, err error) {
	return c.doWithin(ctx, s, q, c.timeout(ctx))
}

// timeout is that of a call.
func (c *Client) timeout(ctx context.Context) time.Duration {
	if d, ok := ctx.Deadline(); ok {
		return time.Until(d)
	}
	return c.cfg.RequestTimeout
}

// leaseGrace is how much longer than it tells the sidecar a LEASE waits: a token
// that comes when nobody waits any more holds up others.
const leaseGrace = 100 * time.Millisecond

func (c *Client) doWithin(ctx context.Context, s *slot, q *wire.Request, timeout time.Duration) (a answer, err error) {
	if q.Namespace == nil {
		q.Namespace = c.namespace
	}
	if err := ctx.Err(); err != nil {
		return a, callError(err)
	}
	q.TimeoutMS = uint32(min(max(timeout.Milliseconds(), 1), wire.MaxTimeout))
	if q.Op == wire.OpLease {
		timeout += leaseGrace
	}
	for attempt := 0; ; attempt++ {
		if a.from, a.conn, err = c.connect(ctx, s); err != nil {
			return a, err
		}
		if q.UntilNS = 0; writes(q) && a.from.oneClock(a.conn) {
			q.UntilNS = c.givenUp(ctx, timeout)
		}
		if a.call, err = a.conn.Do(ctx, timeout, q); err == nil {
			if err = wire.DecodeAnswer(q, a.call.Frame(), &a.Reply); err != nil {
				return a, fmt.Errorf("%w: the sidecar's answer: %w", ErrInternal, err)
			}
			return a, replyError(&a.Reply)
		}
		again := errors.Is(err, rpc.ErrNotSent) || errors.Is(err, rpc.ErrClosed) && repeatable(q.Op)
		if !again || attempt > 0 {
			return a, callError(err)
		}
		a.release()
		a.conn, a.call = nil, nil
	}
}

// givenUp is when a call that begins now is given up, on the boot clock: by its
// timeout, or by its context.
func (c *Client) givenUp(ctx context.Context, timeout time.Duration) uint64 {
	now := c.clock.Read().Boot // first: what passes from here on makes it earlier
	if d, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(d))
	}
	return uint64(max(1, now+timeout-min(clockError, timeout/4)))
}

// writes says whether a request is a write that must not be executed once it has
// been given up.
func writes(q *wire.Request) bool {
	switch q.Op {
	case wire.OpSet, wire.OpDelete, wire.OpTouch, wire.OpIncr, wire.OpFill:
		return !q.Has(wire.Abandon)
	}
	return false
}

func repeatable(op wire.Op) bool {
	switch op {
	case wire.OpGet, wire.OpMGet, wire.OpLease, wire.OpPing, wire.OpStats, wire.OpMembers, wire.OpRing:
		return true
	}
	return false
}
