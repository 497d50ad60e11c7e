package client

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/calls"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Ping asks the sidecar for an empty answer.
func (c *Client) Ping(ctx context.Context) error {
	a, err := c.do(ctx, c.anySlot(), &wire.Request{Op: wire.OpPing})
	a.release()
	return err
}

// Sidecar describes the sidecar that a client is connected to, as the sidecar has greeted
// it.
type Sidecar struct {
	Node     string   // its name
	Version  string   // of its build
	Features []string // the ops that it serves and others may not, in lower case
}

// Sidecar returns which sidecar answers. It asks nothing if there is a connection.
func (c *Client) Sidecar(ctx context.Context) (Sidecar, error) {
	s, conn, _, err := c.reach(ctx, c.anySlot(), c.timeout(ctx))
	if err != nil {
		return Sidecar{}, err
	}
	w := s.welcomeOf(conn)
	if w == nil {
		return Sidecar{}, fmt.Errorf("%w: the connection has ended", cachesidecar.ErrUnavailable)
	}
	return Sidecar{Node: w.Node, Version: w.Server, Features: slices.Clone(w.Features)}, nil
}

// Stats returns the sidecar's statistics.
func (c *Client) Stats(ctx context.Context) (cachesidecar.Stats, error) {
	return callBody[cachesidecar.Stats](ctx, c, &wire.Request{Op: wire.OpStats})
}

// ClusterStats returns the statistics of every host, and the names of the hosts that sent
// none.
func (c *Client) ClusterStats(ctx context.Context) (cachesidecar.ClusterStats, error) {
	return callBody[cachesidecar.ClusterStats](ctx, c, &wire.Request{Op: wire.OpStats, Options: wire.Cluster})
}

// Members returns the hosts of the cluster, as this host sees them.
func (c *Client) Members(ctx context.Context) ([]cachesidecar.Member, error) {
	return callBody[[]cachesidecar.Member](ctx, c, &wire.Request{Op: wire.OpMembers})
}

// Forget removes a dead host from the list of members, on all hosts. It returns
// ErrNotFound if no host knows the name. It does not remove a live host: stop that host
// first.
func (c *Client) Forget(ctx context.Context, node string) error {
	a, err := c.do(ctx, c.anySlot(), &wire.Request{Op: wire.OpForget, Key: []byte(node)})
	a.release()
	return err
}

// Reload makes the sidecar read its configuration again. It returns what has changed, and
// what needs a restart. An error names what is wrong; then nothing has changed.
func (c *Client) Reload(ctx context.Context) (cachesidecar.Changes, error) {
	return callBody[cachesidecar.Changes](ctx, c, &wire.Request{Op: wire.OpReload})
}

// Ring returns which host owns a key.
func (c *Client) Ring(ctx context.Context, key string) (cachesidecar.Place, error) {
	return callBody[cachesidecar.Place](ctx, c, &wire.Request{Op: wire.OpRing, Key: []byte(key)})
}

// Verify makes the sidecar check for the given duration, at most 10 minutes, that no host
// reads a value that it must not read. The context's deadline, or the client's timeout,
// must leave a few seconds more.
func (c *Client) Verify(ctx context.Context, duration time.Duration) (cachesidecar.Verified, error) {
	q := wire.Request{Op: wire.OpVerify, WaitMS: uint32(duration.Milliseconds())}
	return callBody[cachesidecar.Verified](ctx, c, &q)
}

// Drain hands over what this host owns to other hosts, while the sidecar goes on serving.
// Without a deadline of ctx it waits for the leave_time at most; what has begun continues.
func (c *Client) Drain(ctx context.Context, o cachesidecar.DrainOptions) (cachesidecar.Drained, error) {
	ctx, cancel := calls.DrainContext(ctx)
	defer cancel()
	q := calls.Drain(o)
	return callBody[cachesidecar.Drained](ctx, c, &q)
}

func callBody[T any](ctx context.Context, c *Client, q *wire.Request) (v T, err error) {
	a, err := c.do(ctx, c.anySlot(), q)
	defer a.release()
	if err == nil {
		if err = wire.UnmarshalBody(a.Body, &v); err != nil {
			err = fmt.Errorf("%w: the sidecar's answer: %w", cachesidecar.ErrInternal, err)
		}
	}
	return v, err
}
