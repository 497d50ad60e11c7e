package sidecar

import (
	"net"
	"net/http"
	"os"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/httpd"
	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
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
		wrong.Addf("http", "%q: give host:port, such as 127.0.0.1:7948, or \"off\" (%w)", c.HTTP, err)
	case c.Pprof && !c.Insecure && !loopback(c.HTTP):
		wrong.Addf("http", "%s is not loopback, and pprof shows this process's memory to every caller: "+
			"use a loopback address, leave pprof out, or say insecure where the network is trusted", c.HTTP)
	case c.Pprof && c.Profiles == nil:
		wrong.Addf("pprof", "is given without Profiles: "+
			"import net/http/pprof and give http.DefaultServeMux, or leave pprof out")
	}
	_, err = c.httpToken()
	wrong.Add(err)
	return wrong.Err()
}

// Warnings says what is allowed and dangerous, for people to read. The log of Run has it too.
func (c Config) Warnings() (list []string) {
	host, _, err := net.SplitHostPort(c.HTTP)
	if ip := net.ParseIP(host); err == nil && c.HTTPTokenFile == "" && (host == "" || ip != nil && ip.IsUnspecified()) {
		list = append(list, "http listens on all addresses, and without http_token_file everybody who reaches one "+
			"reads the metrics and the status page: give a token, or an address such as 127.0.0.1")
	}
	return list
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
	h, err := httpd.New(httpd.Config{
		Address: s.cfg.HTTP, Callers: s.present.httpCallers(token), MaxConns: s.files.http, Log: s.cfg.Log,
		Ready: s.readiness, Snapshot: s.telemetry.Snapshot, Metrics: s.telemetry.Registry,
		Profiles: profiles(s),
	})
	if err != nil {
		return nil, err
	}
	s.http.Store(h)
	return h, nil
}

// httpStats returns a function that counts the connections of the HTTP port; zero while there is none.
func httpStats(s *Sidecar) func() cachesidecar.HTTPStats {
	return func() (n cachesidecar.HTTPStats) {
		if h := s.http.Load(); h != nil {
			n = h.Stats()
		}
		return n
	}
}

// wordsLast is how long the words of a host that is ready are kept. Anybody may ask for them, as
// often as he likes, and to find out what is wrong costs more than an answer.
const wordsLast = time.Second

// readiness returns the state of this host in words, and whether it is ready.
func (s *Sidecar) readiness() (words string, ready bool) {
	leave, ok := thisHost{s}.Enter()
	if !ok {
		return telemetry.NotReady + ": stopping", false
	}
	defer leave()
	w := &s.words
	w.mu.Lock()
	defer w.mu.Unlock()
	now := s.cfg.clock.Read().Boot
	if w.text != "" && now-w.at < wordsLast && notReady(s) == "" {
		return w.text, true
	}
	st := s.telemetry.Stats()
	words, ready = logs.Plain(telemetry.ConditionLine(&st)), st.NotReady == ""
	if w.text = ""; ready {
		w.at, w.text = now, words
	}
	return words, ready
}

// notReady returns why this host cannot serve its apps as it should; "" if it can, which
// includes that it has joined the others. A host that is alone although others should be there
// serves, and is not ready: its values may be older than max_staleness, and no operator would look.
// One that is drained is ready: orchestrators must not take its apps out for it.
func notReady(s *Sidecar) string {
	select {
	case <-s.ready:
	default:
		return "starting"
	}
	select {
	case <-s.ending.begun:
		return "stopping"
	default:
	}
	if why := s.socket.gone.Load(); why != nil {
		return "apps do not find the socket: " + *why
	}
	node := s.engine.Node
	switch st := node.Stats(); {
	case !node.Quorum() && st.Owned == 0:
		return "no majority of the voters answers: reads miss, and writes are refused"
	case !st.In && !st.Drained:
		for _, m := range node.Members() {
			if m.ID == node.Self() && m.Why != "" {
				return "not joined: " + m.Why
			}
		}
		if st.Members == 1 {
			return "not joined: it looks for other hosts at the join addresses"
		}
		return "not joined: `cachesidecar members` shows the hosts"
	case st.Isolated != "" && !s.aloneOK.Load():
		return "alone: " + st.Isolated + "; set alone_ok if it may be alone"
	}
	return ""
}
