package origintest

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Refusing returns an address where nobody listens.
func Refusing(t testing.TB) string {
	t.Helper()
	l := listen(t)
	defer l.Close()
	return l.Addr().String()
}

// asked waits until a client has begun to ask: some take what comes before that
// for a broken connection.
func asked(c net.Conn) bool {
	_, err := c.Read(make([]byte, 1))
	return err == nil
}

// Saying returns the address of a server that says the same on each connection
// once it is asked, and then nothing more.
func Saying(t testing.TB, what string) string {
	t.Helper()
	return serve(t, func(c net.Conn, ended <-chan struct{}) {
		if asked(c) {
			_, _ = c.Write([]byte(what))
			<-ended
		}
	})
}

// Cutting returns the address of a server that says the same on each connection
// once it is asked, and ends it.
func Cutting(t testing.TB, what string) string {
	t.Helper()
	return serve(t, func(c net.Conn, ended <-chan struct{}) {
		if asked(c) {
			_, _ = c.Write([]byte(what))
			_ = c.(*net.TCPConn).CloseWrite() // Close would take back what was said
			<-ended
		}
	})
}

// Dripping returns the address of a server that says the same on each connection
// once it is asked, and then something else a hundred times a second.
func Dripping(t testing.TB, what, drip string) string {
	t.Helper()
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

// Proxy stands before a server.
type Proxy struct {
	Address string
	lose    atomic.Bool
	mu      sync.Mutex
	conns   []net.Conn
}

// NewProxy passes on what comes, both ways, until the end of the test.
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
		go func() { // both end when either connection does
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

// Lose says whether answers are lost: the connection is cut once the server has
// begun to answer, and the answer stays here.
func (p *Proxy) Lose(lose bool) { p.lose.Store(lose) }

// Cut ends all connections; others can be made.
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
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serve talks to each connection until the end of the test.
func serve(t testing.TB, talk func(c net.Conn, ended <-chan struct{})) string {
	t.Helper()
	l := listen(t)
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // ends with the listener, which the test's end closes
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				gone := make(chan struct{})
				defer close(gone)
				wg.Go(func() { // who reads when the test ends need not wait
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
