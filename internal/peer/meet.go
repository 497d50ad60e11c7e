package peer

import (
	"context"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Meet greets whoever is at an address, and keeps no connection. It returns nil if
// that is the process, and ErrRefused if a process is there and one of the two will
// not talk to the other.
func (p *Pool) Meet(ctx context.Context, id kv.Process, address string) error {
	c, err := p.dial(ctx, &remote{id: id, address: address}, Meet)
	if err != nil {
		return err
	}
	return c.Close()
}
