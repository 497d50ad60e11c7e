package peer

import (
	"context"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

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
