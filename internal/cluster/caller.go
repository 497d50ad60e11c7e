package cluster

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// caller makes the calls that travel on the connections for polls.
type caller struct{ pool *peer.Pool }

// call makes one call with a message as its body, and decodes the body of the answer into
// answer, if that is not nil. An answer with an error status is an error.
func (c *caller) call(ctx context.Context, to kv.Process, timeout time.Duration,
	op wire.Op, message, answer any) error {
	body, err := wire.MarshalBody(message)
	if err != nil {
		return err
	}
	var a peer.Answer
	defer a.Release()
	err = c.pool.Do(ctx, to, peer.Poll, timeout, &wire.Request{Op: op, Body: body}, &a)
	if err == nil {
		err = a.Err()
	}
	if err == nil && answer != nil {
		err = wire.UnmarshalBody(a.Body, answer) // it copies the bytes
	}
	return err
}
