package sidecar

import (
	"net"
	"net/http"
	"os"

	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/httpd"
	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/page"
	"github.com/cachesidecar/cachesidecar/internal/settings"
)

// checkHTTP checks the settings of HTTP.
func (c *Config) checkHTTP() error {
	var wrong settings.Problems
	wrong.Add(httpd.CheckHosts(c.HTTPHosts))
	if c.HTTP == "off" {
		c.HTTP = ""
	}
	if c.HTTP == "" {
		return wrong.Err()
	}
	_, port, err := net.SplitHostPort(c.HTTP)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	switch {
	case err != nil:
		wrong.Addf("http %q: give host:port, such as 127.0.0.1:7948, or \"off\" (%w)", c.HTTP, err)
	case c.Pprof && !c.Insecure && !loopback(c.HTTP):
		wrong.Addf("http %s is not loopback, and pprof shows this process's memory to every caller: "+
			"use a loopback address, leave pprof out, or say insecure where the network is trusted", c.HTTP)
	case c.Pprof && c.Profiles == nil:
		wrong.Addf("pprof is given without Profiles: " +
			"import net/http/pprof and give http.DefaultServeMux, or leave pprof out")
	}
	_, err = c.httpToken()
	wrong.Add(err)
	return wrong.Err()
}

// httpToken reads the token; "" means that none is configured.
func (c *Config) httpToken() (string, error) {
	if c.HTTPTokenFile == "" {
		return "", nil
	}
	return access.ReadToken("http_token_file", c.HTTPTokenFile)
}

// httpCallers says which requests HTTP serves.
func (c *Config) httpCallers(token string) httpd.Callers {
	names := append([]string{c.Node}, c.HTTPHosts...)
	if own, err := os.Hostname(); err == nil {
		names = append(names, own)
	}
	return httpd.Callers{Hosts: names, Token: token}
}

// profiles returns the pages of /debug/pprof, or nil if they are off.
func profiles(s *Sidecar) http.Handler {
	if !s.cfg.Pprof {
		return nil
	}
	return s.cfg.Profiles
}

// listenHTTP returns the server of the HTTP port, or nil if HTTP is off.
func (s *Sidecar) listenHTTP() (*httpd.Server, error) {
	if s.cfg.HTTP == "" {
		return nil, nil
	}
	s.applying.Lock() // a reload before this has set present, and one after it finds s.http
	defer s.applying.Unlock()
	token, err := s.present.httpToken()
	if err != nil {
		return nil, err
	}
	p := page.New(page.Config{
		Snapshot: s.telemetry.Snapshot, Ready: s.readiness,
		Streams: max(1, s.files.HTTP/4), // the rest is for probes and scrapes
	})
	h, err := httpd.New(httpd.Config{
		Address: s.cfg.HTTP, Callers: s.present.httpCallers(token), MaxConns: s.files.HTTP, Log: s.cfg.Log,
		Ready: s.readiness, Page: p.ServeHTTP, Events: p.ServeEvents, Metrics: s.telemetry.Registry,
		Profiles: profiles(s),
	})
	if err != nil {
		return nil, err
	}
	s.http.Store(h)
	return h, nil
}

// readiness reports whether this host serves, and has joined the others. A host that is alone
// although others should be there serves, and is not ready: its values may be older than
// max_staleness, and nobody would look.
func (s *Sidecar) readiness() (words string, ready bool) {
	select {
	case <-s.ready:
	default:
		return "starting", false
	}
	select {
	case <-s.ending.begun:
		return "stopping", false
	default:
	}
	if why := s.socket.gone.Load(); why != nil {
		return "apps do not find the socket: " + *why, false
	}
	switch st := s.engine.Node.Stats(); {
	case !st.In && !st.Drained:
		words := "not joined"
		for _, m := range s.engine.Node.Members() {
			if m.ID == s.engine.Node.Self() && m.Why != "" {
				words += ": " + logs.Plain(m.Why)
			}
		}
		return words, false
	case st.Isolated != "" && !s.aloneOK.Load():
		return "alone: " + logs.Plain(st.Isolated) + "; set alone_ok if it may be alone", false
	case st.Drained: // it serves its apps; orchestrators must not take them out for it
		return "ok, drained: it owns nothing, and serves through other hosts", true
	case st.Isolated != "":
		return "ok, alone: " + logs.Plain(st.Isolated), true
	}
	return "ok", true
}
