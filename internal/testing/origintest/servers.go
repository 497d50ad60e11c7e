package origintest

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// asked waits for the first byte from the client. Some clients treat an earlier answer as
// a broken connection.
func asked(c net.Conn) bool {
	_, err := c.Read(make([]byte, 1))
	return err == nil
}

// Saying returns the address of a server that answers the first request on each
// connection with the same text, and then stays silent.
func Saying(t testing.TB, what string) string {
	t.Helper()
	return serve(t, func(c net.Conn, ended <-chan struct{}) {
		if asked(c) {
			_, _ = c.Write([]byte(what))
			<-ended
		}
	})
}

// Cutting returns the address of a server that answers the first request on each
// connection with the same text, and then ends the connection.
func Cutting(t testing.TB, what string) string {
	t.Helper()
	return serve(t, func(c net.Conn, ended <-chan struct{}) {
		if asked(c) {
			_, _ = c.Write([]byte(what))
			_ = c.(*net.TCPConn).CloseWrite() // Close could discard the answer
			<-ended
		}
	})
}

// Dripping returns the address of a server that answers the first request on each
// connection with what, and then sends drip a hundred times a second.
func Dripping(t testing.TB, what, drip string) string {
	t.Helper()
	testenv.ReadsClock(t, 10*time.Millisecond, "a server that never pauses for long, against a real timeout")
	return serve(t, func(c net.Conn, ended <-chan struct{}) {
		if !asked(c) {
			return
		}
		for _, err := c.Write([]byte(what)); err == nil; _, err = c.Write([]byte(drip)) {
			select {
			case <-ended:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
}

// Proxy forwards connections to a server.
type Proxy struct {
	Address string
	lose    atomic.Bool
	mu      sync.Mutex
	conns   []net.Conn
}

// NewProxy starts a proxy that copies data both ways until the end of the test.
func NewProxy(t testing.TB, network, address string) *Proxy {
	t.Helper()
	p := &Proxy{}
	p.Address = serve(t, func(c net.Conn, ended <-chan struct{}) {
		server, err := net.Dial(network, address)
		if err != nil {
			return
		}
		p.mu.Lock()
		p.conns = append(p.conns, c)
		p.mu.Unlock()
		gone := make(chan struct{}, 2)
		go func() { // both goroutines end when either connection does
			pass(c, server, p.lose.Load)
			gone <- struct{}{}
		}()
		go func() {
			pass(server, c, func() bool { return false })
			gone <- struct{}{}
		}()
		left := 2
		select {
		case <-ended:
		case <-gone:
			left--
		}
		_, _ = c.Close(), server.Close()
		for range left {
			<-gone
		}
	})
	return p
}

// Lose sets whether answers are lost. If so, the proxy cuts the connection when the
// server begins to answer, and drops the answer.
func (p *Proxy) Lose(lose bool) { p.lose.Store(lose) }

// Cut ends all connections. New ones can be made.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

func pass(to, from net.Conn, lose func() bool) {
	for buf := make([]byte, 4096); ; {
		n, err := from.Read(buf)
		if err != nil || lose() {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testenv.Must(t, err)
	return l
}

// serve runs talk for each connection until the end of the test.
func serve(t testing.TB, talk func(c net.Conn, ended <-chan struct{})) string {
	t.Helper()
	l := listen(t)
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // ends with the listener, which t.Cleanup closes
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				gone := make(chan struct{})
				defer close(gone)
				wg.Go(func() { // unblocks a read of talk at the end of the test
					select {
					case <-ended:
						_ = c.Close()
					case <-gone:
					}
				})
				talk(c, ended)
			})
		}
	})
	t.Cleanup(func() {
		close(ended)
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}
