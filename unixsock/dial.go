package unixsock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

// Dial connects to the socket at a path. Where more wait to be let in than the system's
// queue holds it tries again, until ctx ends: such a connect fails at once.
func Dial(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	for {
		nc, err := d.DialContext(ctx, "unix", path)
		if !errors.Is(err, syscall.EAGAIN) {
			return nc, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(dialAgain):
		}
	}
}

// dialAgain is the pause of Dial.
const dialAgain = 2 * time.Millisecond
