package hosts

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
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

// TestVirtualMemcachedExpiryLeavesOrigin ends values of any host through any host, with times that
// are over, in a namespace that writes through. The origin keeps its rows. For the hosts it is a
// change: copies go everywhere, and what they read next is the row.
func TestVirtualMemcachedExpiryLeavesOrigin(t *testing.T) {
	s := &store{database: newDatabase(always(time.Millisecond))}
	throughNodes(t, 2, s, Namespace{}, func(w *world) {
		for i, command := range []string{
			"touch %s -1", "gat -1 %s", "mg %s T-1", "md %s I T-1", "set %s 0 -1 3\r\nbad", "ms %s 3 T-1\r\nbad",
			"replace %s 0 -1 3\r\nbad",
		} {
			for _, owner := range w.nodes {
				key := w.keysOf(owner, i+1)[i]
				c := w.nodes[0].text()
				c.Ask("set "+key+" 0 0 3\r\none", "STORED")
				for _, v := range w.nodes {
					is(t, "before, through "+v.name, v.get(key, 0), wire.OK, "one")
				}
				s.set(key, []byte("two"))
				c.Send(fmt.Sprintf(command, key) + "\r\nmn\r\n")
				c.UntilNoop()
				is(t, "after it, through its own host", w.nodes[0].get(key, 0), wire.OK, "two")
				time.Sleep(100 * time.Millisecond) // until others' copies end
				is(t, "after it, through the other one", w.nodes[1].get(key, 0), wire.OK, "two")
				if row := s.row(key); row != "two" {
					t.Errorf("%.20q of a key of %s: the origin has %q, want what it had", command, owner.name, row)
				}
			}
		}
	})
}
