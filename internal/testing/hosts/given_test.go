package hosts

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// evict writes other values until the owners of some keys have evicted them, which have a small
// quota.
func (w *world) evict(keys []string) {
	w.t.Helper()
	value := make([]byte, 6000)
	for i := range 20_000 {
		left := 0
		for _, key := range keys {
			s := w.ownerOf(key).s
			if _, there := s.engine.Store.Peek(s.engine.Namespaces.Lookup(session.DefaultNamespace).Key([]byte(key)),
				s.engine.Clock.Read().Boot); there {
				left++
			}
		}
		if left == 0 {
			return
		}
		other := fmt.Sprint("other", i)
		v := w.ownerOf(other)
		v.do(&wire.Request{Op: wire.OpSet, Key: []byte(other), Value: value})
	}
	w.t.Fatal("not all keys are evicted")
}

// shared returns what the apps of a host read from its shared memory, "" if there is nothing.
func (v *vnode) shared(key string) string {
	r := v.region.reader
	if r == nil {
		return ""
	}
	view, _ := r.Find(v.w.space)
	f, _, _ := r.Get(&view, view.Hash([]byte(key)), []byte(key), v.clock.Read().Boot)
	return string(f.Value)
}

// textClaim claims the right to load a key over the memcached endpoint, and returns its number.
func textClaim(c *textConn, key, flags string) string {
	c.t.Helper()
	c.Send("mg " + key + " c " + flags + "\r\n")
	f := strings.Fields(c.Line())
	if f[0] == "VA" {
		c.Line()
	}
	if f[len(f)-1] != "W" {
		c.t.Fatalf("no claim: %q", f)
	}
	for _, one := range f {
		if one[0] == 'c' {
			return one[1:]
		}
	}
	return ""
}

// TestVirtualFillOverEvicted checks that no host goes on with copies of a value that its
// owner has evicted, once another one was stored under a version from before.
func TestVirtualFillOverEvicted(t *testing.T) { fillOverEvicted(t, t.Errorf) }

func fillOverEvicted(t *testing.T, bad func(string, ...any)) {
	withNodes(t, 3, nil, Namespace{Quota: 256 << 10}, func(w *world) {
		w.shareMemory()
		doors := map[string]func(v *vnode, key string){
			"FILL": func(v *vnode, key string) {
				l := v.raw(wire.Request{Op: wire.OpLease, Key: []byte(key)})
				is(t, key, v.raw(wire.Request{Op: wire.OpFill, Key: []byte(key), Token: l.Token, Value: []byte("second")}), wire.OK, "")
			},
			"claim": func(v *vnode, key string) {
				r := v.raw(wire.Request{
					Op: wire.OpMetaGet, Key: []byte(key), TTLMS: wire.TTLDefault, Options: wire.Claim | wire.Create, LeaseMS: 60_000,
				})
				is(t, key, v.swap(key, "second", uint64(r.Number), 0), wire.OK, "")
			},
			"ms": func(v *vnode, key string) {
				c := v.text()
				c.Ask("ms "+key+" 6 C"+textClaim(c, key, "v N30")+"\r\nsecond", "HD")
			},
		}
		var keys []string
		for door := range doors {
			for i := range 3 {
				keys = append(keys, fmt.Sprint(door, i))
			}
		}
		for _, key := range keys {
			w.ownerOf(key).raw(wire.Request{Op: wire.OpSet, Key: []byte(key), Value: []byte("first")})
		}
		time.Sleep(100 * time.Millisecond)
		rest := func(key string) (reader, writer *vnode) { // two that do not own it
			i := w.ownerOf(key).i
			return w.nodes[(i+1)%3], w.nodes[(i+2)%3]
		}
		for _, key := range keys {
			reader, _ := rest(key)
			for range 3 {
				is(t, "a copy", reader.get(key, 0), wire.OK, "first")
			}
			for _, v := range []*vnode{reader, w.ownerOf(key)} {
				w.readToShare(v.s, &vkey{name: []byte(key)}, 3)
			}
		}
		w.evict(keys)
		copies := 0
		for i, key := range keys {
			reader, writer := rest(key)
			if string(reader.get(key, 0).Value) == "first" && reader.shared(key) == "first" {
				copies++
			}
			if i%2 == 0 {
				writer = w.ownerOf(key)
			}
			doors[key[:len(key)-1]](writer, key)
			is(t, key+" at the host that has written it", writer.get(key, 0), wire.OK, "second")
		}
		if copies < len(keys)/2 {
			t.Errorf("%d copies have outlived their entries, of %d", copies, len(keys))
		}
		time.Sleep(time.Second)
		for _, key := range keys {
			for _, v := range w.nodes {
				if r := v.get(key, 0); string(r.Value) != "second" {
					bad("%s at %s: %s %q, want the second value", key, v.name, r.Status, r.Value)
				}
				if got := v.shared(key); got == "first" {
					bad("%s: apps of %s read the first value from the shared memory", key, v.name)
				}
			}
		}
	})
}

// TestVirtualWriterReadsItsWrite checks for each operation that writes that no read at the
// host which has acknowledged it returns what was before.
func TestVirtualWriterReadsItsWrite(t *testing.T) {
	withNodes(t, 3, nil, Namespace{}, func(w *world) {
		w.shareMemory()
		claim := func(v *vnode, key string) uint64 {
			r := v.raw(wire.Request{
				Op: wire.OpMetaGet, Key: []byte(key), TTLMS: wire.TTLDefault, Options: wire.Claim, RenewMS: 30_000,
			})
			if r.Claim != wire.ClaimWon {
				t.Fatalf("no claim: %+v", r)
			}
			return uint64(r.Number)
		}
		q := func(op wire.Op, key string) wire.Request {
			return wire.Request{Op: op, Key: []byte(key), TTLMS: wire.TTLDefault}
		}
		for name, write := range map[string]func(v *vnode, key string) (do func() wire.Reply, want string){
			"SET": func(v *vnode, key string) (func() wire.Reply, string) {
				r := q(wire.OpSet, key)
				r.Value = []byte("2")
				return func() wire.Reply { return v.raw(r) }, "2"
			},
			"SET that compares": func(v *vnode, key string) (func() wire.Reply, string) {
				version := v.meta(key, 0).Version
				return func() wire.Reply { return v.swap(key, "2", version, 0) }, "2"
			},
			"SET of a claim": func(v *vnode, key string) (func() wire.Reply, string) {
				number := claim(v, key)
				return func() wire.Reply { return v.swap(key, "2", number, 0) }, "2"
			},
			"SET of a claim over memcached": func(v *vnode, key string) (func() wire.Reply, string) {
				c := v.text()
				number := textClaim(c, key, "R30")
				return func() wire.Reply {
					c.Ask("ms "+key+" 1 C"+number+"\r\n2", "HD")
					return wire.Reply{}
				}, "2"
			},
			"APPEND": func(v *vnode, key string) (func() wire.Reply, string) {
				r := q(wire.OpSet, key)
				r.Value, r.Mode = []byte("2"), wire.ModeAppend
				return func() wire.Reply { return v.raw(r) }, "12"
			},
			"INCR": func(v *vnode, key string) (func() wire.Reply, string) {
				r := q(wire.OpIncr, key)
				r.Delta = 1
				return func() wire.Reply { return v.raw(r) }, "2"
			},
			"DELETE": func(v *vnode, key string) (func() wire.Reply, string) {
				return func() wire.Reply {
					return v.do(&wire.Request{Op: wire.OpDelete, Keys: [][]byte{[]byte(key)}})
				}, ""
			},
			"soft DELETE": func(v *vnode, key string) (func() wire.Reply, string) {
				return func() wire.Reply {
					return v.do(&wire.Request{Op: wire.OpDelete, Keys: [][]byte{[]byte(key)}, Options: wire.Soft})
				}, ""
			},
		} {
			for i := range 10 {
				key := fmt.Sprint(name[:3], len(name), "-", i)
				v := w.other(key)
				v.raw(wire.Request{Op: wire.OpSet, Key: []byte(key), Value: []byte("1"), TTLMS: 20_000})
				do, want := write(v, key)
				is(t, "before", v.get(key, 0), wire.OK, "1") // a copy that was attested after the claim
				w.readToShare(v.s, &vkey{name: []byte(key)}, 2)
				is(t, name, do(), wire.OK, "")
				if got := v.shared(key); got == "1" {
					t.Errorf("%s: from the shared memory: %q", name, got)
				}
				if r := v.get(key, 0); string(r.Value) != want {
					t.Errorf("%s: a read at its host: %s %q, want %q", name, r.Status, r.Value, want)
				}
			}
		}
	})
}
