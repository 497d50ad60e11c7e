package faults

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
)

// queueTime is how long a load may wait for its turn.
const queueTime = 200 * time.Millisecond

// Pages are rowKeys keys from firstPage on. They are in a namespace of their own, and
// sidecars load them over HTTP.
const firstPage = 10_000

// client returns the client of the node's app for a key's namespace.
func (n *node) client(key int) *client.Client {
	if key >= firstPage && key < firstPage+rowKeys {
		return n.app.InNamespace("pages")
	}
	return n.app
}

// pages is an origin over HTTP, in this process.
type pages struct {
	server *httptest.Server

	mu   sync.Mutex
	last map[int]int // the number of each key's value
	down bool
}

func newPages(t testing.TB) *pages {
	p := &pages{last: map[int]int{}}
	for i := range rowKeys {
		p.last[firstPage+i] = 1
	}
	p.server = httptest.NewServer(p)
	t.Cleanup(p.server.Close)
	return p
}

// ServeHTTP answers some milliseconds after it has read the value, which may have changed
// by then.
func (p *pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var key int
	_, err := fmt.Sscanf(strings.TrimPrefix(r.URL.Path, "/"), "key:%d", &key)
	p.mu.Lock()
	seq, down := p.last[key], p.down
	p.mu.Unlock()
	switch {
	case down:
		http.Error(w, "the origin is down", http.StatusServiceUnavailable)
	case err != nil || seq == 0:
		http.NotFound(w, r)
	default:
		time.Sleep(rand.N(8 * time.Millisecond))
		_, _ = w.Write(value(key, seq))
	}
}

// put commits a new value of a page, unless the origin is down.
func (p *pages) put(key, seq int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		return errors.New("the origin is down")
	}
	p.last[key] = seq
	return nil
}

// stop makes the origin fail every request, until it is called again with false.
func (p *pages) stop(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
}

func (p *pages) isDown() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.down
}

// settings returns the namespace's settings, for a configuration file.
func (p *pages) settings(queueTime time.Duration) string {
	return fmt.Sprintf(`
pages:
  stale_limit: 30s
  origin:
    http: {url: "%s/{key}"}
  limits:
    timeout: 500ms
    queue_time: %v
    breaker: {failures: 5, open: 500ms}
`, p.server.URL, queueTime)
}

// browse starts apps that read pages through every node, and apps that change them.
func (l *load) browse(p *pages) {
	for key := range p.last {
		l.record(op{kind: set, key: key, seq: 1, out: done}) // as newPages wrote it
	}
	for w := range writers {
		l.wg.Go(func() { l.change(p, w, firstPage, false) })
	}
	for _, n := range l.g.nodes {
		l.wg.Go(func() {
			for l.sleep() {
				if n.up.Load() {
					l.get(n, firstPage+rand.IntN(rowKeys), cachesidecar.GetOptions{})
				}
			}
		})
	}
	l.needs["origin"] = 100
}
