package sidecar

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestVirtualMemcachedLoads reads keys of an origin through both hosts at once, with each command.
// Each key is loaded once, and no client gets a claim.
func TestVirtualMemcachedLoads(t *testing.T) {
	o := newDatabase(always(50 * time.Millisecond))
	withNodes(t, 2, o, Namespace{}, func(w *world) {
		keys := append(w.keysOf(w.nodes[0], 3), w.keysOf(w.nodes[1], 3)...)
		for _, key := range keys {
			o.set(key, []byte("the row"))
		}
		var all sync.WaitGroup
		for i := range 24 {
			c := w.nodes[i%2].text()
			all.Go(func() {
				for n := range keys {
					key := keys[(n+i)%len(keys)]
					switch i / 2 % 4 {
					case 0:
						c.Ask("get "+key, "VALUE "+key+" 0 7", "the row", "END")
					case 1:
						c.Send("gets " + key + " " + key + "\r\n")
						for range 2 {
							if line := c.Line(); !strings.HasPrefix(line, "VALUE "+key+" 0 7 ") || c.Line() != "the row" {
								t.Errorf("gets %s: %q", key, line)
							}
						}
						c.Ask("mn", "END", "MN")
					case 2:
						c.Ask("mg "+key+" v s", "VA 7 s7", "the row")
					default:
						c.Ask("mg "+key+" v N30", "VA 7", "the row")
					}
				}
			})
		}
		all.Wait()
		for _, key := range keys {
			if n := o.asked(key); n != 1 {
				t.Errorf("%s was loaded %d times", key, n)
			}
		}
		for _, v := range w.nodes {
			c := v.text()
			c.Ask("delete "+keys[0], "DELETED")
			c.Ask("get "+keys[0], "VALUE "+keys[0]+" 0 7", "the row", "END")
			c.Ask("get none-"+v.name, "END")
			c.Ask("mg none-"+v.name+" v N30", "EN") // the origin says so: there is nothing to load
		}
		if n := o.asked(keys[0]); n != 3 {
			t.Errorf("%d loads after two deletions, want 3", n)
		}
	})
}

// TestVirtualMemcachedLoadsFail reads keys while the origin fails. A key that is asked for alone is
// answered SERVER_ERROR, and one among others is left out.
func TestVirtualMemcachedLoadsFail(t *testing.T) {
	o := newDatabase(always(time.Millisecond))
	withNodes(t, 2, o, Namespace{Limits: Limits{Breaker: Breaker{Failures: 1000}}}, func(w *world) {
		for _, v := range w.nodes {
			for _, owner := range w.nodes {
				keys := w.keysOf(owner, 2)
				key, there := keys[0], keys[1]
				c := v.text()
				c.Ask("set "+there+" 0 0 1\r\nx", "STORED")
				c.Ask("delete "+key+"\r\nmn", "NOT_FOUND", "MN")
				o.fail(errors.New("connection refused"))
				for _, command := range []string{
					"get " + key, "gets " + key, "mg " + key + " v", "mg " + key + " v N30", "gat 0 " + key,
				} {
					if c.Send(command + "\r\n"); !strings.HasPrefix(c.Line(), "SERVER_ERROR ORIGIN: ") {
						t.Errorf("%q is not answered SERVER_ERROR ORIGIN", command)
					}
				}
				c.Ask("get "+key+" "+there, "VALUE "+there+" 0 1", "x", "END")
				c.Ask("set "+key+" 0 0 1\r\ny", "STORED") // no load is needed for it
				c.Ask("get "+key, "VALUE "+key+" 0 1", "y", "END")
				o.fail(nil)
				c.Ask("delete "+key, "DELETED")
				c.Ask("get "+key, "END")
				c.Ask("delete "+key+"\r\nmn", "NOT_FOUND", "MN")
			}
		}
	})
}

// TestVirtualMemcachedWriteThrough changes keys of a namespace that writes through. The origin has
// each change that is acknowledged, and none that is not.
func TestVirtualMemcachedWriteThrough(t *testing.T) {
	s := &store{database: newDatabase(always(time.Millisecond))}
	throughNodes(t, 2, s, Namespace{}, func(w *world) {
		for _, v := range w.nodes {
			for i, key := range []string{w.keysOf(w.nodes[0], 1)[0], w.keysOf(w.nodes[1], 1)[0]} {
				c := v.text()
				has := func(want string) {
					t.Helper()
					for _, v := range w.nodes {
						if r := v.get(key, wire.Fresh); string(r.Value) != want || s.row(key) != want {
							t.Errorf("%s, key %d: %q, the origin has %q, want %q", v.name, i, r.Value, s.row(key), want)
						}
					}
				}
				c.Ask("set "+key+" 0 0 3\r\none", "STORED")
				has("one")
				c.Ask("ms "+key+" 3\r\ntwo", "HD")
				has("two")
				for _, command := range []string{
					"add " + key + " 0 0 1\r\nx", "replace " + key + " 0 0 1\r\nx", "append " + key + " 0 0 1\r\nx",
					"prepend " + key + " 0 0 1\r\nx", "cas " + key + " 0 0 1 1\r\nx", "incr " + key + " 1", "md " + key + " C1",
				} {
					if c.Send(command + "\r\n"); !strings.HasPrefix(c.Line(), "CLIENT_ERROR ") {
						t.Errorf("%q is not refused", command)
					}
				}
				has("two")
				c.Ask("touch "+key+" 100", "TOUCHED")
				s.before = func() error { return errors.New("read only") }
				for _, command := range []string{"set " + key + " 0 0 1\r\nx", "delete " + key} {
					c.Send(command + "\r\n")
					if line := c.Line(); !strings.HasPrefix(line, "SERVER_ERROR TIMEOUT: ") {
						t.Errorf("%q, which the origin fails: %q", command, line)
					}
				}
				s.before = nil
				has("two")
				c.Ask("delete "+key, "DELETED")
				has("")
			}
		}
	})
}
