package httporigin

import (
	"net/http"
	"sync"

	"github.com/cachesidecar/cachesidecar/loader"
)

// client makes requests. net/http uses a connection as long as there are requests, also if the host's name
// leads to another server by now. So the client begins anew, with new connections, when a term is over. The
// old ones end with the requests that they have.
type client struct {
	connections int
	terms       loader.Terms
	flood       flood

	mu      sync.Mutex
	current *http.Client // nil before the first request
	term    loader.Term
}

// do makes a request.
func (c *client) do(req *http.Request) (*http.Response, error) {
	current, term := c.get()
	resp, err := c.by(current, req)
	if err == nil && resp.StatusCode == http.StatusMisdirectedRequest { // another server answers for the host
		c.terms.End(term)
	}
	return resp, err
}

// by makes a request with one of the clients. One whose term has ended meanwhile may have made a connection for it,
// which would stay.
func (c *client) by(current *http.Client, req *http.Request) (*http.Response, error) {
	resp, err := request(current, req)
	c.mu.Lock()
	left := c.current != current
	c.mu.Unlock()
	if left {
		current.CloseIdleConnections() // also those that become idle from now on
	}
	return resp, err
}

func (c *client) get() (*http.Client, loader.Term) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == nil || c.terms.Over(c.term) {
		if c.current != nil {
			c.current.CloseIdleConnections()
		}
		c.current, c.term = newClient(c.connections), c.terms.Begin()
		transport := c.current.Transport.(*http.Transport)
		transport.DialContext = counted(transport.DialContext, &c.flood)
	}
	return c.current, c.term
}

// close closes idle connections.
func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil {
		c.current.CloseIdleConnections()
	}
}

// newClient returns a client that does not follow redirects.
func newClient(connections int) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost, transport.MaxConnsPerHost = connections, connections
	transport.MaxResponseHeaderBytes = 64 << 10
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
