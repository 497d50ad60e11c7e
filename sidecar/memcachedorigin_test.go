package sidecar

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// TestVirtualMemcachedOrigin has a client use keys of another host that an origin has. They are
// loaded and written as the host's own keys are, of which the tests of package session have more.
func TestVirtualMemcachedOrigin(t *testing.T) {
	s := &store{database: newDatabase(always(time.Millisecond))}
	throughNodes(t, 2, s, Namespace{Limits: Limits{Breaker: Breaker{Failures: 1000}}}, func(w *world) {
		keys, c := w.keysOf(w.nodes[0], 4), w.nodes[1].text()
		key, there, none, fails := keys[0], keys[1], keys[2], keys[3]
		s.set(key, []byte("the row"))
		c.Ask("mg "+key+" v N30", "VA 7", "the row") // and no claim
		c.Ask("mg "+none+" v N30", "EN")             // the origin says so: there is nothing to load
		c.Ask("get "+key+" "+none, "VALUE "+key+" 0 7", "the row", "END")
		if n := s.asked(key); n != 1 {
			t.Errorf("%d loads", n)
		}
		begins := func(command, want string) {
			t.Helper()
			c.Send(command + "\r\n")
			if line := c.Line(); !strings.HasPrefix(line, want) {
				t.Errorf("%q: %q, want %s", command, line, want)
			}
		}
		c.Ask("set "+there+" 0 0 1\r\nx", "STORED")
		begins("incr "+there+" 1", "CLIENT_ERROR ")
		begins("add "+there+" 0 0 1\r\ny", "CLIENT_ERROR ")
		s.before = func() error { return errors.New("read only") }
		begins("set "+there+" 0 0 1\r\nz", "SERVER_ERROR TIMEOUT: ")
		s.before = nil
		if got := s.row(there); got != "x" {
			t.Errorf("the origin has %q", got)
		}
		c.Ask("get "+there, "VALUE "+there+" 0 1", "x", "END") // loads it: the outcome was unknown
		s.fail(errors.New("connection refused"))
		begins("get "+fails, "SERVER_ERROR ORIGIN: ")
		begins("mg "+fails+" v N30", "SERVER_ERROR ORIGIN: ")
		c.Ask("get "+fails+" "+there, "VALUE "+there+" 0 1", "x", "END")
	})
}
