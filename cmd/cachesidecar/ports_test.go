package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync/atomic"
	"syscall"
)

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// nextPort counts up from a random start, so that concurrent callers find different
// ports, although no caller reserves its ports.
var nextPort = func() *atomic.Uint32 {
	var n atomic.Uint32
	n.Store(rand.Uint32N(12_000))
	return &n
}()

// freePorts finds ports that are free for TCP and UDP, below the ports that systems
// assign by themselves. It holds ForkLock, since a child process forked meanwhile would
// keep the sockets open until its exec.
func freePorts(n int) (ports []int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	for range 100 * n {
		if len(ports) == n {
			return ports, nil
		}
		port := 20_000 + int(nextPort.Add(1)%12_000)
		var tcp net.Listener
		if tcp, err = net.Listen("tcp", loopback(port)); err != nil {
			continue
		}
		defer tcp.Close() // until the end, so that no port is found twice
		var udp net.PacketConn
		if udp, err = net.ListenPacket("udp", loopback(port)); err != nil {
			continue
		}
		defer udp.Close()
		ports = append(ports, port)
	}
	return nil, fmt.Errorf("no free ports on 127.0.0.1: %w", err)
}
