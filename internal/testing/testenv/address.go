package testenv

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strconv"
	"syscall"
	"testing"
)

// Refusing returns an address that refuses connections until the end of the test: a socket
// is bound to it that does not listen, so no other program can take it.
func Refusing(t testing.TB) string {
	t.Helper()
	syscall.ForkLock.RLock()
	s, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(s)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(s) })
	if err = syscall.Bind(s, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(s)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint("127.0.0.1:", bound.(*syscall.SockaddrInet4).Port)
}

// FreeAddress returns an address of loopback that is free for TCP and UDP, as is its next
// port. Nothing keeps it free. On Linux all of 127/8 is loopback, so two tests rarely choose
// the same. The system gives none of these ports to connections.
func FreeAddress(t testing.TB) string {
	t.Helper()
	address, err := FindAddress()
	Must(t, err)
	return address
}

// FindAddress is FreeAddress for programs.
func FindAddress() (string, error) {
	for range 100 {
		host := "127.0.0.1"
		if runtime.GOOS == "linux" {
			host = fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
		}
		port := 10_000 + 2*rand.IntN(10_000)
		address := net.JoinHostPort(host, strconv.Itoa(port))
		if Free(address) && Free(net.JoinHostPort(host, strconv.Itoa(port+1))) {
			return address, nil
		}
	}
	return "", errors.New("no free port on loopback")
}

// Free reports whether an address can be bound. It excludes forks: a child that another
// test forks meanwhile would keep the socket open until its exec.
func Free(address string) bool {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	l, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	defer l.Close()
	p, err := net.ListenPacket("udp", address)
	if err != nil {
		return false
	}
	return p.Close() == nil
}
