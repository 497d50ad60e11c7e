package sidecar

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
	"net/http/pprof"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/logs"
)

// What is told to requests that are refused.
const (
	needsToken = "this page needs the token of http_token_file: send it as \"Authorization: Bearer TOKEN\""
	otherName  = "this sidecar does not go by that name: use an IP address, or add the name to http_hosts"
)

// admin serves health, metrics and profiles over HTTP. It changes nothing: it takes
// GET and HEAD.
type admin struct {
	gate *gate
	srv  *http.Server
}

// newAdmin listens on the configured address. It returns nil where there is
// none.
func (s *Sidecar) newAdmin() (*admin, error) {
	if s.cfg.HTTP == "" {
		return nil, nil
	}
	token, err := s.cfg.httpToken()
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", s.cfg.HTTP)
	if err != nil {
		return nil, fmt.Errorf("http %s: %w: choose another address, or \"off\"", s.cfg.HTTP, err)
	}
	errorLog := log.New(logs.Text(s.cfg.Log, slog.LevelWarn, "http: trouble with a connection"), "", 0)
	a := &admin{gate: newGate(ln, s.files.http)}
	s.gate.Store(a.gate)
	a.srv = &http.Server{
		Handler:           hosts{s.cfg.httpHosts(), s.adminPages(token, errorLog)},
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      10 * time.Second, // a profile's own time comes on top
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          errorLog,
		ConnState:         a.gate.state,
	}
	return a, nil
}

// adminPages are what is served. Where there is a token, health is open all the same,
// in a word: probes can rarely send one.
func (s *Sidecar) adminPages(token *digest, errorLog *log.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) {
		words, ready := s.readiness()
		if !token.in(r) {
			words = "ok"
		}
		if !ready {
			if !token.in(r) {
				words = "not ready"
			}
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintln(w, words)
	})
	mux.Handle("/metrics", token.guard(promhttp.HandlerFor(&oneByOne{of: s.metrics}, promhttp.HandlerOpts{
		Registry: s.metrics, ErrorLog: errorLog, MaxRequestsInFlight: 8,
	})))
	if s.cfg.Pprof {
		for path, page := range map[string]http.HandlerFunc{
			"/debug/pprof/": pprof.Index, "/debug/pprof/cmdline": pprof.Cmdline, "/debug/pprof/profile": pprof.Profile,
			"/debug/pprof/symbol": pprof.Symbol, "/debug/pprof/trace": pprof.Trace,
		} {
			mux.Handle(path, token.guard(page))
		}
	}
	return mux
}

// oneByOne gathers for one request at a time: the work is spread over all processors,
// which others want too.
type oneByOne struct {
	mu sync.Mutex
	of prometheus.Gatherer
}

// Gather waits for its turn.
func (g *oneByOne) Gather() ([]*dto.MetricFamily, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.of.Gather()
}

// digest is a secret that was hashed: those compared are of one length.
type digest [sha256.Size]byte

// in says whether a request brings the secret; nil is none, which all have.
func (d *digest) in(r *http.Request) bool {
	if d == nil {
		return true
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	got := sha256.Sum256([]byte(strings.TrimSpace(token)))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(got[:], d[:]) == 1
}

// guard lets requests through that bring the secret.
func (d *digest) guard(page http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !d.in(r) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, needsToken, http.StatusUnauthorized)
			return
		}
		page.ServeHTTP(w, r)
	})
}

// httpToken reads the token; nil where there is none.
func (c *Config) httpToken() (*digest, error) {
	if c.HTTPTokenFile == "" {
		return nil, nil
	}
	token, err := access.ReadToken("http_token_file", c.HTTPTokenFile)
	if err != nil {
		return nil, err
	}
	d := digest(sha256.Sum256([]byte(token)))
	return &d, nil
}

// hosts lets through what was sent to one of this host's names. A page in a browser
// that has its own name lead here (DNS rebinding) sends that name, and a name cannot
// be an IP address.
type hosts struct {
	names []string
	pages http.Handler
}

// httpHosts are the names that requests may be sent to, in lower case.
func (c *Config) httpHosts() []string {
	names := []string{"localhost", strings.ToLower(c.Node)}
	if own, err := os.Hostname(); err == nil {
		names = append(names, strings.ToLower(own))
	}
	for _, name := range c.HTTPHosts {
		names = append(names, strings.ToLower(strings.TrimSuffix(name, ".")))
	}
	return names
}

func (h hosts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	w.Header().Set("X-Content-Type-Options", "nosniff")
	switch {
	case host != "" && net.ParseIP(host) == nil && !slices.Contains(h.names, host):
		http.Error(w, otherName, http.StatusMisdirectedRequest)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "GET and HEAD alone are taken", http.StatusMethodNotAllowed)
	default:
		h.pages.ServeHTTP(w, r)
	}
}

// readiness says whether this host serves, and has joined the others where
// somebody answers at the join addresses. Who is cut off from others is ready.
func (s *Sidecar) readiness() (words string, ready bool) {
	select {
	case <-s.ready:
	default:
		return "starting", false
	}
	if why := s.socket.gone.Load(); why != nil {
		return "apps do not find the socket: " + *why, false
	}
	switch st := s.node.Stats(); {
	case !st.In:
		words := "not joined"
		for _, m := range s.node.Members() {
			if m.ID == s.node.Self() && m.Why != "" {
				words += ": " + logs.Plain(m.Why)
			}
		}
		return words, false
	case len(s.cfg.Join) > 0 && st.Members == 1:
		return "ok, alone: nobody answers at the join addresses", true
	}
	return "ok", true
}

// run serves until ctx ends.
func (a *admin) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = a.srv.Close() })
	defer stop()
	if err := a.srv.Serve(a.gate); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("http: %w", err)
	}
	return nil
}
