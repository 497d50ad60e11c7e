package unixsock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

// Dial connects to the socket at a path. If the socket's queue is full, the connect fails
// at once, and Dial tries again until ctx ends. If this process may not open the socket, the
// error is a PermissionError.
func Dial(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	for {
		nc, err := d.DialContext(ctx, "unix", path)
		if !errors.Is(err, syscall.EAGAIN) {
			return nc, withRemedy(path, err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(dialAgain):
		}
	}
}

// dialAgain is Dial's pause between two tries.
const dialAgain = 2 * time.Millisecond
