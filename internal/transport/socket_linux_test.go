package transport

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestUnsentAfterReset checks that nothing counts as unsent once a peer over TCP has gone without
// reading, so that no connection waits for it.
func TestUnsentAfterReset(t *testing.T) {
	nc, accepted := connect(t, "tcp", "127.0.0.1:0")
	var s Socket
	s.Init(accepted, time.Second, func() error { return nil })
	defer accepted.Close()
	written := make(chan struct{})
	go func() {
		_, _ = accepted.Write(make([]byte, 64<<20)) // more than both buffers take
		close(written)
	}()
	testenv.Eventually(t, "bytes that the peer does not read", func() bool { return s.InKernel() > 0 })
	_ = nc.Close()
	<-written
	testenv.Eventually(t, "the bytes to go with the peer", func() bool { return s.InKernel() == 0 })
}

// TestListenTCP checks that the buffers of connections over TCP are as small as they are to be.
func TestListenTCP(t *testing.T) {
	ln, err := ListenTCP("127.0.0.1:0", 8<<10, 16<<10, time.Second)
	testenv.Must(t, err)
	defer ln.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	testenv.Must(t, err)
	defer nc.Close()
	accepted, err := ln.Accept()
	testenv.Must(t, err)
	defer accepted.Close()
	raw, err := accepted.(*net.TCPConn).SyscallConn()
	testenv.Must(t, err)
	err = raw.Control(func(fd uintptr) {
		for option, want := range map[[2]int]int{
			{unix.SOL_SOCKET, unix.SO_SNDBUF}: 16 << 10, {unix.SOL_SOCKET, unix.SO_RCVBUF}: 32 << 10,
			{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT}: 1000,
		} {
			if n, err := unix.GetsockoptInt(int(fd), option[0], option[1]); n != want || err != nil {
				t.Errorf("option %v is %d, %v, want %d", option, n, err, want)
			}
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// TestAtEnd checks that the server sees an end and a reset behind the last bytes that its reader has
// read, and nothing while the client is there or bytes are unread.
func TestAtEnd(t *testing.T) {
	for network, address := range map[string]string{"unix": t.TempDir() + "/s", "tcp": "127.0.0.1:0"} {
		for _, how := range []string{"close", "reset", "half"} {
			t.Run(network+"/"+how, func(t *testing.T) {
				near, far := connect(t, network, address)
				var s Socket
				s.Init(near, time.Second, func() error { return nil })
				if how == "reset" { // over a Unix socket: by what the client has not read
					mustWrite(t, near, []byte("unread"))
				}
				mustWrite(t, far, []byte("x"))
				if s.AtEnd() {
					t.Error("an end before the bytes are read")
				}
				if _, err := near.Read(make([]byte, 8)); err != nil {
					t.Fatal(err)
				}
				if s.AtEnd() {
					t.Error("an end while the client is there")
				}
				if tcp, ok := far.(*net.TCPConn); ok && how == "reset" {
					_ = tcp.SetLinger(0)
				}
				if how == "half" {
					_ = far.(interface{ CloseWrite() error }).CloseWrite()
				} else {
					_ = far.Close()
				}
				seen := s.AtEnd
				if how == "reset" { // looks without taking the error
					seen = s.HungUp
				}
				testenv.Eventually(t, "the end", seen)
				if how == "reset" && !s.AtEnd() {
					t.Error("the first look after a reset sees no end")
				}
				if n, err := near.Read(make([]byte, 8)); err == nil {
					t.Errorf("read %d bytes behind the end", n)
				}
			})
		}
	}
}

// connect returns the two ends of a connection.
func connect(t *testing.T, network, address string) (near, far net.Conn) {
	t.Helper()
	ln, err := net.Listen(network, address)
	testenv.Must(t, err)
	defer ln.Close()
	if far, err = net.Dial(network, ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if near, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
	return near, far
}

func mustWrite(t *testing.T, nc net.Conn, b []byte) {
	t.Helper()
	if _, err := nc.Write(b); err != nil {
		t.Fatal(err)
	}
}
