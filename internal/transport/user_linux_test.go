package transport

import (
	"net"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestUserOf: the user of a client over TCP is the one that has made its socket, over each kind of address,
// and is not known once the client has closed it.
func TestUserOf(t *testing.T) {
	for name, tc := range map[string]struct{ listen, dial string }{
		"IPv4":                     {"127.0.0.1:0", "127.0.0.1"},
		"IPv6":                     {"[::1]:0", "::1"},
		"IPv4 to a socket of both": {":0", "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", tc.listen)
			if err != nil {
				t.Skip("no IPv6 here: enable it: ", err)
			}
			defer ln.Close()
			_, port, err := net.SplitHostPort(ln.Addr().String())
			testenv.Must(t, err)
			client := dialAs(t, 54321, net.JoinHostPort(tc.dial, port))
			nc, err := ln.Accept()
			testenv.Must(t, err)
			defer nc.Close()
			want := 54321
			if os.Getuid() != 0 {
				want = os.Getuid()
			}
			if uid, ok := UserOf(nc); uid != want || !ok {
				t.Errorf("got %d, %v, want %d", uid, ok, want)
			}
			testenv.Must(t, client.Close())
			if uid, ok := UserOf(nc); ok {
				t.Errorf("of a socket that is closed: %d", uid)
			}
		})
	}
	if _, ok := UserOf(&net.UnixConn{}); ok {
		t.Error("a connection that is none")
	}
}

// dialAs connects as another user, if this process may.
func dialAs(t *testing.T, uid uintptr, address string) (client net.Conn) {
	t.Helper()
	done := make(chan struct{})
	go func() { // ends at once, with its thread, which is another user's
		defer close(done)
		runtime.LockOSThread()
		_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, uid, 0, 0)
		var err error
		client, err = net.Dial("tcp", address)
		testenv.Should(t, err)
	}()
	if <-done; client == nil {
		t.FailNow()
	}
	return client
}

// BenchmarkUserOf is what a new connection over TCP costs more.
func BenchmarkUserOf(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	testenv.Must(b, err)
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	testenv.Must(b, err)
	defer client.Close()
	nc, err := ln.Accept()
	testenv.Must(b, err)
	defer nc.Close()
	for b.Loop() {
		UserOf(nc)
	}
}
