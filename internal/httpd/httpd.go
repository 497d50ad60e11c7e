// Package httpd serves a sidecar's health, status page, metrics and profiles over HTTP.
//
// Input is GET and HEAD requests that were sent to an IP address or to one of this host's
// names, and functions that report the state of the sidecar. Output is the pages; all but
// health are only for clients with the token, if there is one. The number of connections is
// bounded: a new one takes the place of another one of the user that has the most. So is the number
// of streams of events, which keep the status page up to date.
//
// Run serves until its context ends; net/http runs a goroutine per connection, which ends
// with it. The package changes nothing in the sidecar, and does not encrypt.
package httpd

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
	"github.com/cachesidecar/cachesidecar/internal/transport"
)

// Texts for requests that are refused.
const (
	needsToken = "this page needs the token of http_token_file: " +
		"send it as \"Authorization: Bearer TOKEN\", or as the password of any user"
	otherName = "this sidecar does not go by that name: use an IP address, or add the name to http_hosts"
)

const (
	writeTime = 10 * time.Second // for an answer; the time of a profile is added

	// The kernel's buffers of a connection are half of what it takes of the process's memory.
	sendBuffer    = 64 << 10
	receiveBuffer = 16 << 10
)

// Config describes the server.
type Config struct {
	Address  string // host:port
	Callers  Callers
	MaxConns int // connections at once; a quarter of them may be streams of events
	Log      *slog.Logger

	Ready   func() (words string, ready bool) // text and status of /readyz
	Metrics *prometheus.Registry
	// Snapshot reads what the status page shows. It returns false once the host is closing.
	Snapshot func() (telemetry.Snapshot, bool)
	// Profiles are the pages of /debug/pprof; nil: none.
	Profiles http.Handler
}

// Callers says which requests are served.
type Callers struct {
	Hosts []string // names that requests may be sent to, beside localhost and IP addresses
	Token string   // that all pages but health need; "": they need none
}

// callers are Callers, as requests are compared with them.
type callers struct {
	names    []string
	token    *digest
	inEffect context.Context // ends when other callers take their place
	end      context.CancelFunc
}

// Server is the HTTP server. It takes only GET and HEAD, and changes nothing.
type Server struct {
	gate    *gate
	srv     *http.Server
	callers atomic.Pointer[callers]
}

// SetCallers changes which requests are served. It ends the streams of events: those that are
// still allowed come again.
func (s *Server) SetCallers(c Callers) {
	now := &callers{names: lower(c.Hosts), token: digestOf(c.Token)}
	now.inEffect, now.end = context.WithCancel(context.Background())
	if last := s.callers.Swap(now); last != nil {
		last.end()
	}
}

// whileAllowed ends the requests of a handler when who may call changes.
func (s *Server) whileAllowed(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(s.callers.Load().inEffect, cancel)()
		h.ServeHTTP(w, r.WithContext(ctx))
	})
}

// New listens on the address. Run then serves.
func New(c Config) (*Server, error) {
	ln, err := transport.ListenTCP(c.Address, sendBuffer, receiveBuffer, writeTime)
	if err != nil {
		return nil, fmt.Errorf("http %s: %w: choose another address, or \"off\"", c.Address, err)
	}
	errorLog := log.New(logs.Text(c.Log, slog.LevelWarn, "http: trouble with a connection"), "", 0)
	s := &Server{gate: newGate(ln, c.MaxConns)}
	s.SetCallers(c.Callers)
	s.srv = &http.Server{
		Handler:           ownNames{s, s.pages(&c, errorLog)},
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      writeTime,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          errorLog,
		ConnState:         s.gate.state,
		ConnContext:       s.gate.withOwner,
	}
	return s, nil
}

// Addr returns the address on which the server listens.
func (s *Server) Addr() net.Addr { return s.gate.Addr() }

// Stats returns the counts of connections.
func (s *Server) Stats() cachesidecar.HTTPStats {
	return cachesidecar.HTTPStats{Open: int64(s.gate.len()), Limit: int64(s.gate.most), Closed: s.gate.closed.Load()}
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.srv.Close() })
	defer stop()
	if err := s.srv.Serve(s.gate); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("http: %w", err)
	}
	return nil
}

// pages returns the handler of all pages. With a token set, the health pages stay open
// but are shortened to the words before a colon for requests without it, since probes can
// rarely send a token.
func (s *Server) pages(c *Config, errorLog *log.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) {
		words, ready := c.Ready()
		if !s.hasToken(r) {
			words, _, _ = strings.Cut(words, ":")
		}
		if !ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintln(w, words)
	})
	p := newPage(c.Snapshot, c.MaxConns/4) // the rest is for probes and scrapes
	mux.Handle("/{$}", s.requireToken(http.HandlerFunc(p.serve)))
	mux.Handle("/events", s.whileAllowed(s.requireToken(http.HandlerFunc(p.serveEvents))))
	mux.Handle("/metrics", s.requireToken(promhttp.HandlerFor(&oneByOne{of: c.Metrics}, promhttp.HandlerOpts{
		Registry: c.Metrics, ErrorLog: errorLog, MaxRequestsInFlight: 8,
	})))
	if c.Profiles != nil {
		mux.Handle("/debug/pprof/", s.requireToken(c.Profiles))
	}
	return mux
}

// oneByOne gathers metrics for one request at a time: gathering uses all processors,
// which other work needs too.
type oneByOne struct {
	mu sync.Mutex
	of prometheus.Gatherer
}

// Gather waits for its turn, and gathers.
func (one *oneByOne) Gather() ([]*dto.MetricFamily, error) {
	one.mu.Lock()
	defer one.mu.Unlock()
	return one.of.Gather()
}

// digest is the hash of a secret: hashes have one length and can be compared in constant
// time.
type digest [sha256.Size]byte

// digestOf hashes a secret; "" gives nil.
func digestOf(secret string) *digest {
	if secret == "" {
		return nil
	}
	d := digest(sha256.Sum256([]byte(secret)))
	return &d
}

// broughtBy reports whether a request brings the secret: as a bearer token or, since browsers can
// ask a person only for that, as a password. Every request brings a nil secret.
func (d *digest) broughtBy(r *http.Request) bool {
	if d == nil {
		return true
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	_, password, basic := r.BasicAuth()
	if basic {
		token = password
	}
	got := sha256.Sum256([]byte(strings.TrimSpace(token)))
	return (basic || strings.EqualFold(scheme, "Bearer")) && subtle.ConstantTimeCompare(got[:], d[:]) == 1
}

// hasToken reports whether a request brings the token, if there is one.
func (s *Server) hasToken(r *http.Request) bool { return s.callers.Load().token.broughtBy(r) }

// requireToken serves page to requests that bring the token, and refuses the others.
func (s *Server) requireToken(page http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.hasToken(r) {
			w.Header()["Www-Authenticate"] = []string{"Bearer", `Basic realm="cachesidecar", charset="UTF-8"`}
			http.Error(w, needsToken, http.StatusUnauthorized)
			return
		}
		page.ServeHTTP(w, r)
	})
}

// ownNames serves requests that were sent to one of this host's names or to an IP address. A
// page in a browser whose own name was made to lead here (DNS rebinding) sends that name,
// and a name cannot be an IP address.
type ownNames struct {
	server *Server
	pages  http.Handler
}

func (names ownNames) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.ContentLength != 0 { // of a body that no handler reads: the server waits for it behind the answer
		w.Header().Set("Connection", "close")
		_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
	}
	switch {
	case host != "" && net.ParseIP(host) == nil && !slices.Contains(names.server.callers.Load().names, host):
		http.Error(w, otherName, http.StatusMisdirectedRequest)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "GET and HEAD alone are taken", http.StatusMethodNotAllowed)
	case r.ContentLength != 0:
		http.Error(w, "requests here have no body: send none", http.StatusRequestEntityTooLarge)
	default:
		names.pages.ServeHTTP(w, r)
	}
}

// CheckHosts returns an error if a name is not one that requests can be sent to.
func CheckHosts(names []string) error {
	for _, name := range names {
		if name == "" || len(name) > 253 || strings.ContainsAny(name, "/:*@ \t\r\n\x00") {
			return settings.Problemf("http_hosts", "%q: give names of hosts, without port and scheme", name)
		}
	}
	return nil
}

// lower returns the names as they are compared, and localhost.
func lower(names []string) []string {
	list := []string{"localhost"}
	for _, name := range names {
		list = append(list, strings.ToLower(strings.TrimSuffix(name, ".")))
	}
	return list
}
