package httporigin

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
)

// net/http answers whatever comes on a connection of HTTP/2, as PINGs, also if there is no request. So a connection
// ends if more comes than these bytes.
const (
	maxGreeting = 512 << 10 // before the first request: certificates
	maxIdle     = 64 << 10  // after a request, until the next one
)

var errUnasked = errors.New("the server has sent too much without a request")

// countedConn knows whether it has a request.
type countedConn struct {
	net.Conn
	mu       sync.Mutex
	requests int
	left     int // bytes that may come without a request
}

// counted returns a dial function whose connections are counted.
func counted(
	dial func(context.Context, string, string) (net.Conn, error),
) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &countedConn{Conn: c, left: maxGreeting}, nil
	}
}

func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.requests > 0 {
		return n, err
	}
	if c.left -= n; c.left < 0 {
		return 0, errUnasked
	}
	return n, err
}

// add notes that the connection has one request more, or less.
func (c *countedConn) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests, c.left = c.requests+n, maxIdle
}

// asking is a request, from its connection to the end of the answer's body.
type asking struct {
	io.ReadCloser // the body

	mu   sync.Mutex
	conn *countedConn // nil: none yet, or it is over
}

// request makes a request with a client whose connections are counted. The caller closes the body.
func request(by *http.Client, req *http.Request) (*http.Response, error) {
	a := &asking{}
	got := func(info httptrace.GotConnInfo) { a.use(info.Conn) } // again after a connection that had ended
	trace := &httptrace.ClientTrace{GotConn: got}
	resp, err := by.Do(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	if err != nil {
		a.use(nil)
		return nil, err
	}
	a.ReadCloser, resp.Body = resp.Body, a
	return resp, nil
}

// use notes the connection that the request has now; nil: none.
func (a *asking) use(c net.Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn != nil {
		a.conn.add(-1)
	}
	if a.conn = countedBelow(c); a.conn != nil {
		a.conn.add(1)
	}
}

// countedBelow returns the countedConn of a connection, below TLS or not; nil: there is none.
func countedBelow(c net.Conn) *countedConn {
	for {
		over, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			below, _ := c.(*countedConn)
			return below
		}
		c = over.NetConn()
	}
}

// Close closes the body, and ends the request.
func (a *asking) Close() error {
	defer a.use(nil)
	return a.ReadCloser.Close()
}
