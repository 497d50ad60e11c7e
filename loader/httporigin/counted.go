package httporigin

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// net/http reads, and answers, whatever comes on a connection of HTTP/2, as PINGs, also if there is no request. So a
// connection ends if more comes than these bytes.
const (
	maxGreeting = 512 << 10 // before the first request: certificates
	maxIdle     = 64 << 10  // after a request, until the next one
	maxBeside   = 5 << 20   // for each request, beside what is read of its body: 4 MiB of that come before, and frames
	shortWrite  = 256       // bytes: as long as an answer to a PING, or the news that bytes were read
	answerCosts = 1 << 10   // bytes that may not come for each short write
	floodPause  = 5 * time.Second
)

// errTooMuch ends a connection, and is the error of all requests within floodPause of that.
var errTooMuch = fmt.Errorf("the server has sent too much beside its answers, as PINGs of HTTP/2: "+
	"no connection is made for %v after that", floodPause)

// flood is when a connection of an origin last had too much; nil: never.
type flood struct{ last atomic.Pointer[time.Time] }

// note notes that a connection has too much.
func (f *flood) note() error {
	now := time.Now()
	f.last.Store(&now)
	return errTooMuch
}

// recent reports whether a connection had too much within floodPause.
func (f *flood) recent() bool {
	last := f.last.Load()
	return last != nil && time.Since(*last) < floodPause
}

// countedConn counts what comes, in view of the requests that it has.
type countedConn struct {
	net.Conn
	flood    *flood
	mu       sync.Mutex
	requests int
	left     int // bytes that may come
}

// counted returns a dial function whose connections are counted.
func counted(
	dial func(context.Context, string, string) (net.Conn, error), f *flood,
) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if f.recent() {
			return nil, errTooMuch
		}
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &countedConn{Conn: c, flood: f, left: maxGreeting}, nil
	}
}

func (conn *countedConn) Read(p []byte) (int, error) {
	n, err := conn.Conn.Read(p)
	if !conn.take(n) {
		return 0, conn.flood.note()
	}
	return n, err
}

func (conn *countedConn) Write(p []byte) (int, error) {
	if len(p) < shortWrite && !conn.take(answerCosts) {
		return 0, conn.flood.note()
	}
	return conn.Conn.Write(p)
}

// take reports whether n more bytes may come.
func (conn *countedConn) take(n int) bool {
	conn.mu.Lock()
	defer conn.mu.Unlock()
	conn.left -= n
	return conn.left >= 0
}

// add notes that the connection has n requests more.
func (conn *countedConn) add(n int) {
	conn.mu.Lock()
	defer conn.mu.Unlock()
	if conn.requests += n; conn.requests == 0 {
		conn.left = maxIdle
		return
	}
	conn.left += max(0, n) * maxBeside
	conn.bound()
}

// bodyRead notes that n bytes of a body were read. Frames may be as long again.
func (conn *countedConn) bodyRead(n int) {
	conn.mu.Lock()
	defer conn.mu.Unlock()
	conn.left += 2 * n
	conn.bound()
}

func (conn *countedConn) bound() { conn.left = min(conn.left, conn.requests*maxBeside) }

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

func (a *asking) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn != nil {
		a.conn.bodyRead(n)
	}
	return n, err
}

// Close closes the body, and ends the request.
func (a *asking) Close() error {
	defer a.use(nil)
	return a.ReadCloser.Close()
}
