package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// slot is one connection's place: it makes the connection on demand, and again
// after it was lost.
type slot struct {
	cfg  *Config
	live atomic.Pointer[rpc.Client]

	maxValue atomic.Int64 // bytes, as HELLO told; zero before

	mu     sync.Mutex // held while connecting
	closed bool
	failed error // of the last attempt
	until  time.Time
	pause  time.Duration
}

// Pauses between attempts to connect.
const (
	firstPause = 10 * time.Millisecond
	lastPause  = time.Second
)

// get returns a connection that was alive when last seen.
func (s *slot) get(ctx context.Context) (*rpc.Client, error) {
	if c := s.live.Load(); c != nil && alive(c) {
		return c, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if c := s.live.Load(); c != nil {
		if alive(c) {
			return c, nil
		}
		s.live.Store(nil)
		_ = c.Close()
	}
	if s.failed != nil && time.Now().Before(s.until) {
		return nil, s.failed
	}
	c, err := s.dial(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.pause = min(max(2*s.pause, firstPause), lastPause)
			s.until = time.Now().Add(s.pause/2 + rand.N(s.pause))
			s.failed = err
		}
		return nil, err
	}
	s.failed, s.pause = nil, 0
	s.live.Store(c)
	return c, nil
}

func alive(c *rpc.Client) bool {
	select {
	case <-c.Done():
		return false
	default:
		return true
	}
}

func (s *slot) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if c := s.live.Swap(nil); c != nil {
		_ = c.Close()
	}
}

// dial connects and says HELLO.
func (s *slot) dial(ctx context.Context) (*rpc.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.DialTimeout)
	defer cancel()
	path, err := unixsock.Find(s.cfg.Socket)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("%w: cannot connect to the sidecar: %w", ErrUnavailable, err)
	}
	c := rpc.NewClient(nc, rpc.ClientConfig{MaxCalls: s.cfg.MaxCalls})
	call, err := c.Do(ctx, s.cfg.DialTimeout, &wire.Request{Op: wire.OpHello, Hello: wire.Hello{
		Versions: []int{wire.Version}, Client: s.cfg.Name, Token: s.cfg.Token, Namespace: s.cfg.Namespace,
	}})
	if err == nil {
		var r wire.Reply
		if err = wire.DecodeReply(wire.OpHello, call.Frame(), &r); err == nil {
			err = replyError(&r)
		}
		var w wire.Welcome
		if err == nil {
			if err = wire.UnmarshalBody(r.Body, &w); err == nil {
				s.maxValue.Store(int64(w.Limits.Value))
			}
		}
		c.Release(call)
	} else if !errors.Is(err, context.Canceled) {
		if errors.Is(err, rpc.ErrNoAnswer) {
			err = context.DeadlineExceeded // the one timer or the other
		}
		err = fmt.Errorf("%w: no HELLO from the sidecar at %s: %w", ErrUnavailable, path, err)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}
