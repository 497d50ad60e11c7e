package sidecar

import (
	"net"

	"github.com/cachesidecar/cachesidecar/internal/testhook"
)

func init() { testhook.New = newForTests }

// newForTests is New for tests in another package.
func newForTests(cfg any, on testhook.Machine) (any, testhook.Parts, error) {
	c := cfg.(Config)
	c.clock, c.network, c.events, c.passed, c.readPatience = on.Clock, on.Network, on.Events, on.Passed, on.ReadPatience
	s, err := New(c)
	if err != nil {
		return nil, testhook.Parts{}, err
	}
	return s, testhook.Parts{
		Engine: s.engine, Telemetry: s.telemetry, Sessions: s.sessions, Server: s.server, Keys: &s.keys,
		Host: thisHost{s}, Execute: s.execute, Readiness: s.readiness,
		NotReady:  func() string { return notReady(s) },
		Memcached: func(ln net.Listener) { s.memcached.ln = ln },
		Configs: func() (start, present any) {
			s.applying.Lock()
			defer s.applying.Unlock()
			return s.cfg, s.present
		},
	}, nil
}
