//go:build !linux

package peer

import (
	"net"
	"time"
)

func dropUnheard(net.Conn, time.Duration) {}
