package sidecar

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"

	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/httpd"
	"github.com/cachesidecar/cachesidecar/internal/logs"
)

// checkHTTP checks the settings of HTTP.
func (c *Config) checkHTTP() error {
	if err := httpd.CheckHosts(c.HTTPHosts); err != nil {
		return err
	}
	if c.HTTP == "off" {
		c.HTTP = ""
	}
	if c.HTTP == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(c.HTTP)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return fmt.Errorf("http %q: give host:port, such as 127.0.0.1:7948, or \"off\" (%w)", c.HTTP, err)
	}
	if c.Pprof && !c.Insecure && !loopback(c.HTTP) {
		return fmt.Errorf("http %s is not loopback, and pprof shows this process's memory to every caller: "+
			"use a loopback address, leave pprof out, or say insecure where the network is trusted", c.HTTP)
	}
	if c.Pprof && c.Profiles == nil {
		return errors.New("pprof is given without Profiles: " +
			"import net/http/pprof and give http.DefaultServeMux, or leave pprof out")
	}
	_, err = c.httpToken()
	return err
}

// httpToken reads the token; "" means that none is configured.
func (c *Config) httpToken() (string, error) {
	if c.HTTPTokenFile == "" {
		return "", nil
	}
	return access.ReadToken("http_token_file", c.HTTPTokenFile)
}

// profiles returns the pages of /debug/pprof, or nil if they are off.
func (s *Sidecar) profiles() http.Handler {
	if !s.cfg.Pprof {
		return nil
	}
	return s.cfg.Profiles
}

// listenHTTP returns the server of health and metrics, or nil if HTTP is off.
func (s *Sidecar) listenHTTP() (*httpd.Server, error) {
	if s.cfg.HTTP == "" {
		return nil, nil
	}
	token, err := s.cfg.httpToken()
	if err != nil {
		return nil, err
	}
	names := append([]string{s.cfg.Node}, s.cfg.HTTPHosts...)
	if own, err := os.Hostname(); err == nil {
		names = append(names, own)
	}
	h, err := httpd.New(httpd.Config{
		Address: s.cfg.HTTP, Hosts: names, Token: token, MaxConns: s.files.HTTP, Log: s.cfg.Log,
		Ready: s.readiness, Metrics: s.telemetry.Registry, Profiles: s.profiles(),
	})
	if err == nil {
		s.http.Store(h)
	}
	return h, err
}

// readiness reports whether this host serves, and has joined the others if one of them
// answers at the join addresses. A host that is cut off from the others is ready.
func (s *Sidecar) readiness() (words string, ready bool) {
	select {
	case <-s.ready:
	default:
		return "starting", false
	}
	if why := s.socket.gone.Load(); why != nil {
		return "apps do not find the socket: " + *why, false
	}
	switch st := s.engine.Node.Stats(); {
	case !st.In:
		words := "not joined"
		for _, m := range s.engine.Node.Members() {
			if m.ID == s.engine.Node.Self() && m.Why != "" {
				words += ": " + logs.Plain(m.Why)
			}
		}
		return words, false
	case len(s.cfg.Join) > 0 && st.Members == 1:
		return "ok, alone: no host answers at the join addresses", true
	}
	return "ok", true
}
