package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// admin serves health, metrics and profiles over HTTP.
type admin struct {
	ln  net.Listener
	srv *http.Server
}

// newAdmin listens on the configured address. It returns nil where there is
// none.
func (s *Sidecar) newAdmin() (*admin, error) {
	if s.cfg.HTTP == "" {
		return nil, nil
	}
	ln, err := net.Listen("tcp", s.cfg.HTTP)
	if err != nil {
		return nil, fmt.Errorf("http %s: %w: choose another address, or \"off\"", s.cfg.HTTP, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		words, ready := s.readiness()
		if !ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintln(w, words)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics, promhttp.HandlerOpts{Registry: s.metrics}))
	if s.cfg.Pprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return &admin{ln: ln, srv: &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}}, nil
}

// readiness says whether this host serves, and has joined the others where
// somebody answers at the join addresses. Who is cut off from others is ready.
func (s *Sidecar) readiness() (words string, ready bool) {
	select {
	case <-s.ready:
	default:
		return "starting", false
	}
	switch st := s.node.Stats(); {
	case !st.In:
		words := "not joined"
		for _, m := range s.node.Members() {
			if m.ID == s.node.Self() && m.Why != "" {
				words += ": " + m.Why
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
	if err := a.srv.Serve(a.ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("http: %w", err)
	}
	return nil
}
