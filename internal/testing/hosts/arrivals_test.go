package hosts

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// deletions are the ways to delete a key whose value has a version, and the answer if the value
// was there.
var deletions = []struct {
	name, says string
	soft       bool
	delete     func(v *vnode, c *textConn, key string, version uint64) string
}{
	{"DELETE with a version", "OK", false, func(v *vnode, _ *textConn, key string, version uint64) string {
		return v.raw(wire.Request{Op: wire.OpDelete, Keys: [][]byte{[]byte(key)}, Compare: version}).Items[0].Status.String()
	}},
	{"DELETE, soft", "OK", true, func(v *vnode, _ *textConn, key string, _ uint64) string {
		return v.remove(wire.Soft, key)[0].Status.String()
	}},
	{"DELETE", "OK", false, func(v *vnode, _ *textConn, key string, _ uint64) string {
		return v.remove(0, key)[0].Status.String()
	}},
	{"md with C", "HD", false, func(_ *vnode, c *textConn, key string, version uint64) string {
		c.Send(fmt.Sprintf("md %s C%d\r\n", key, version))
		return c.Line()
	}},
	{"md with I", "HD", true, func(_ *vnode, c *textConn, key string, _ uint64) string {
		c.Send(fmt.Sprintf("md %s I\r\n", key))
		return c.Line()
	}},
	{"delete", "DELETED", false, func(_ *vnode, c *textConn, key string, _ uint64) string {
		c.Send(fmt.Sprintf("delete %s\r\n", key))
		return c.Line()
	}},
	{"cas that is over at once", "STORED", false, func(_ *vnode, c *textConn, key string, version uint64) string {
		c.Send(fmt.Sprintf("cas %s 0 -1 1 %d\r\nx\r\n", key, version))
		return c.Line()
	}},
}

// TestVirtualDeletedOnItsWay deletes keys, at their new owner and through another host, while
// their values are on their way from the last owner. Each deletion finds its value, and no value
// comes after it.
func TestVirtualDeletedOnItsWay(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 5*time.Second)
	withNodes(t, 3, nil, Namespace{}, func(w *world) {
		from := w.nodes[0]
		keys := w.keysOf(from, 8*len(deletions))
		versions := make([]uint64, len(keys))
		for i, key := range keys {
			r := from.raw(wire.Request{Op: wire.OpSet, Key: []byte(key), Value: bytes.Repeat([]byte("v"), 60_000)})
			versions[i] = r.Version
		}
		texts := [][]*textConn{{}, {}, {}} // one for each key: a client must not wait for another one
		for range keys {
			for i, v := range w.nodes[1:] {
				texts[i+1] = append(texts[i+1], v.text())
			}
		}
		from.s.engine.Node.SetWeight(1)
		said := make(chan string, len(keys))
		for i, key := range keys {
			go func() {
				d := deletions[i%len(deletions)]
				for began := time.Now(); w.owned(key) == nil || w.owned(key) == from; time.Sleep(50 * time.Microsecond) {
					if time.Since(began) > 10*time.Second { // the first host keeps some
						said <- ""
						return
					}
				}
				v := w.nodes[1+i%2]
				if a := d.delete(v, texts[v.i][i], key, versions[i]); a != d.says {
					said <- fmt.Sprintf("%s of %q: %s, want %s", d.name, key, a, d.says)
					return
				}
				said <- "deleted"
			}()
		}
		deleted := 0
		for range keys {
			switch a := <-said; a {
			case "":
			case "deleted":
				deleted++
			default:
				t.Error(a)
			}
		}
		var fetched int64
		for _, v := range w.nodes {
			fetched += v.s.engine.Handoff.Stats().Fetched
		}
		if deleted < len(keys)/2 || fetched < 8 {
			t.Errorf("%d of %d keys were deleted after they had moved, %d while they were on their way", deleted, len(keys), fetched)
		}
		time.Sleep(10 * time.Second)
		for i, key := range keys {
			if w.ownerOf(key) == from {
				continue
			}
			want := wire.Miss
			if deletions[i%len(deletions)].soft {
				want = wire.Stale
			}
			if r := w.nodes[i%3].get(key, wire.Fresh|wire.StaleOK); r.Status != want {
				t.Errorf("%s of %q: then a read says %s, want %s", deletions[i%len(deletions)].name, key, r.Status, want)
			}
		}
	})
}

// TestVirtualFreshOnItsWay cuts the link between a new owner and the last one, from which the
// values of its keys are to come. A fresh read is UNAVAILABLE or has the value: it is no miss.
func TestVirtualFreshOnItsWay(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	withNodes(t, 3, nil, Namespace{}, func(w *world) {
		from := w.nodes[0]
		keys := w.keysOf(from, 60)
		for _, key := range keys {
			from.raw(wire.Request{Op: wire.OpSet, Key: []byte(key), Value: bytes.Repeat([]byte("v"), 60_000)})
		}
		from.s.engine.Node.SetWeight(1)
		to := w.owned(keys[len(keys)-1])
		for ; to == nil || to == from; to = w.owned(keys[len(keys)-1]) {
			time.Sleep(20 * time.Microsecond)
		}
		w.net.Cut(from.ip, to.ip)
		said := map[wire.Status]int{}
		for _, key := range keys {
			if w.owned(key) != to {
				continue
			}
			for _, q := range []wire.Request{
				{Op: wire.OpGet, Key: []byte(key), Options: wire.Fresh},
				{Op: wire.OpMGet, Keys: [][]byte{[]byte(key)}, Options: wire.Fresh},
			} {
				q.TimeoutMS = 20
				r := to.raw(q)
				if len(r.Items) == 1 {
					r = r.Items[0]
				}
				if said[r.Status]++; r.Status != wire.OK && r.Status != wire.Unavailable {
					t.Errorf("%s of %q: %s", q.Op, key, r.Status)
				}
			}
		}
		if said[wire.Unavailable] < 10 {
			t.Errorf("the reads were answered %v", said)
		}
		w.net.Heal()
		time.Sleep(10 * time.Second)
	})
}

// owned returns the node that owns a key at this moment, or nil.
func (w *world) owned(key string) *vnode {
	for _, v := range w.nodes {
		if owns(v.s, DefaultNamespace, key) {
			return v
		}
	}
	return nil
}
