package hosts

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// reload gives a node these namespaces alone.
func (v *vnode) reload(names ...string) {
	v.w.t.Helper()
	cfg := v.s.present()
	cfg.Namespaces = map[string]Namespace{}
	for _, name := range names {
		cfg.Namespaces[name] = Namespace{}
	}
	if _, err := v.s.Apply(context.Background(), cfg); err != nil {
		v.w.t.Fatal(err)
	}
}

// refused expects that a command is refused for the namespace that its key names.
func (c *textConn) refused(command, namespace string) {
	c.t.Helper()
	c.Send(command + "\r\nmn\r\n")
	got := c.UntilNoop()
	if !strings.HasPrefix(got, "CLIENT_ERROR ") || !strings.Contains(got, fmt.Sprintf("%q", namespace)) {
		c.t.Errorf("%q: %q, want it refused for %q", command, got, namespace)
	}
}

// TestVirtualMemcachedNamespaceComes reloads hosts one after the other with a namespace that is new,
// and then without it. A key of the namespace is the same value on each host that knows the
// namespace, and is refused on each other.
func TestVirtualMemcachedNamespaceComes(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 500*time.Millisecond)
	withNodes(t, 2, nil, Namespace{}, func(w *world) {
		a, b := w.nodes[0].hookedText(hooked{delimiter: ":"}), w.nodes[1].hookedText(hooked{delimiter: ":"})
		const pages = "pages"
		for i := range 8 {
			key := fmt.Sprint("pages:", i)
			get, set := "get "+key, "set "+key+" 0 0 3\r\n"
			has := func(c *textConn, value string) {
				t.Helper()
				c.Ask(get, "VALUE "+key+" 0 3", value, "END")
			}
			for _, c := range []*textConn{a, b} {
				c.refused(set+"bad", pages)
				c.refused(get, pages)
			}
			w.nodes[0].reload(pages)
			a.Ask(set+"one", "STORED")
			b.refused(set+"bad", pages)
			b.refused(get, pages)
			has(a, "one")
			w.nodes[1].reload(pages)
			has(b, "one")
			b.Ask(set+"two", "STORED")
			time.Sleep(w.bound)
			has(a, "two")
			w.nodes[0].reload()
			a.refused(set+"bad", pages)
			b.Ask(set+"six", "STORED")
			w.nodes[0].reload(pages)
			time.Sleep(w.bound)
			has(a, "six")
			w.nodes[0].reload()
			w.nodes[1].reload()
		}
	})
}

// TestVirtualMemcachedUnknownBesideOthers gets keys of which another host owns some, and one in
// the midst names no namespace. The error comes after the values before it and ends the answer.
func TestVirtualMemcachedUnknownBesideOthers(t *testing.T) {
	withNodes(t, 2, nil, Namespace{}, func(w *world) {
		c := w.nodes[1].hookedText(hooked{delimiter: ":"})
		keys := append(w.keysOf(w.nodes[0], 3), w.keysOf(w.nodes[1], 1)...)
		values := ""
		for _, key := range keys {
			c.Ask("set "+key+" 0 0 1\r\nx", "STORED")
			values += "VALUE " + key + " 0 1|x|"
		}
		for _, get := range []string{"get ", "gat 100 "} {
			c.Send(get + strings.Join(keys, " ") + " pages:1 " + keys[0] + "\r\nmn\r\n")
			said, ok := strings.CutPrefix(c.UntilNoop(), values)
			if !ok || !strings.HasPrefix(said, "CLIENT_ERROR ") || strings.Count(said, "|") != 1 {
				t.Errorf("%s: %q after the values", get, said)
			}
		}
		c.Ask("get "+keys[0], "VALUE "+keys[0]+" 0 1", "x", "END")
	})
}

// TestVirtualMemcachedOtherDelimiter gives all hosts another delimiter in the order that
// docs/MEMCACHED.md says: each is restarted without the endpoint, everything is flushed, and then
// each is restarted with the new one. A key reads nothing that it has named before.
func TestVirtualMemcachedOtherDelimiter(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	withNodes(t, 3, nil, Namespace{}, func(w *world) {
		w.namespaces = map[string]Namespace{"pages": {}}
		restart := func(v *vnode) {
			v.leave()
			time.Sleep(2 * time.Second)
			v.start()
			w.agreed(20 * time.Second)
			time.Sleep(5 * time.Second) // for handoffs
		}
		for _, v := range w.nodes {
			restart(v)
		}
		for round, delimiter := range []string{":", "", "/", ":"} {
			if round > 0 {
				for _, v := range w.nodes {
					restart(v) // without the endpoint
				}
				testenv.Must(t, flushThrough(w.nodes[0], "", 5*time.Second))
			}
			var served []*textConn
			for _, v := range w.nodes {
				if round > 0 {
					restart(v)
				}
				served = append(served, v.hookedText(hooked{delimiter: delimiter}))
				for _, key := range []string{"pages:1", "pages/1", "1"} {
					now := fmt.Sprint(round, len(served))
					if len(served) == 1 {
						served[0].Ask("get "+key, "END")
					}
					served[0].Ask("set "+key+" 0 0 "+fmt.Sprint(len(now))+"\r\n"+now, "STORED")
					time.Sleep(w.bound)
					for _, c := range served {
						c.Ask("get "+key, fmt.Sprintf("VALUE %s 0 %d", key, len(now)), now, "END")
					}
				}
				// The endpoint's connections end with the host's process.
			}
		}
	})
}

// TestVirtualMemcachedEndKeepsNextValue stores a value right after a read has ended the one before,
// while the reading host has not answered yet. The new value stays.
func TestVirtualMemcachedEndKeepsNextValue(t *testing.T) {
	withNodes(t, 2, nil, Namespace{}, func(w *world) {
		key := w.keysOf(w.nodes[0], 1)[0]
		read := 0
		c := w.nodes[1].hookedText(hooked{after: func(q *wire.Request, _ *wire.Reply) {
			if q.Op == wire.OpMetaGet && string(q.Key) == key {
				read++
				is(t, "the next value", w.nodes[0].set(key, "new"), wire.OK, "")
			}
		}})
		for i, command := range []string{"gat -1 K", "gats -1 K", "gat -1 other K", "mg K v T-1"} {
			c.Ask("set "+key+" 0 0 3\r\nold", "STORED")
			c.Send(strings.ReplaceAll(command, "K", key) + "\r\nmn\r\n")
			if got := c.UntilNoop(); !strings.Contains(got, "|old|") {
				t.Errorf("%q: %q", command, got)
			}
			if time.Sleep(time.Second); read <= i {
				t.Fatalf("%q: no METAGET was passed on", command)
			}
			is(t, command, w.nodes[0].get(key, wire.Fresh), wire.OK, "new")
			is(t, command, w.nodes[1].get(key, 0), wire.OK, "new")
		}
	})
}
