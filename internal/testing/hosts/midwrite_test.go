//go:build failpoint

package hosts

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// handovers begin in the middle of a write, and are taken back after it.
var handovers = map[string]struct{ begin, undo func(*vnode) }{
	"handed over": {
		begin: func(v *vnode) { v.drained(cachesidecar.DrainOptions{}) },
		undo:  func(v *vnode) { v.drained(cachesidecar.DrainOptions{Undo: true}) },
	},
	"not asked for yet": {
		begin: func(v *vnode) { v.s.engine.Node.SetWeight(1) },
		undo:  func(v *vnode) { v.s.engine.Node.SetWeight(100) },
	},
}

func (v *vnode) drained(o cachesidecar.DrainOptions) {
	if _, err := v.s.Drain(context.Background(), o); err != nil {
		v.w.t.Error(err)
	}
}

// midWrites are writes of a key that has the value "1", and the value afterwards.
var midWrites = []struct {
	name, value string
	write       func(v *vnode, key string) wire.Reply
}{
	{"SET", "2", func(v *vnode, key string) wire.Reply { return v.set(key, "2") }},
	{"INCR", "2", func(v *vnode, key string) wire.Reply {
		return v.do(&wire.Request{Op: wire.OpIncr, Key: []byte(key), Delta: 1})
	}},
	{"REPLACE", "2", func(v *vnode, key string) wire.Reply {
		return v.do(&wire.Request{Op: wire.OpSet, Mode: wire.ModeReplace, Key: []byte(key), Value: []byte("2")})
	}},
	{"TOUCH", "1", func(v *vnode, key string) wire.Reply {
		return v.do(&wire.Request{Op: wire.OpTouch, Key: []byte(key), TTLMS: 60_000})
	}},
	{"DELETE", "", func(v *vnode, key string) wire.Reply { return v.remove(0, key)[0] }},
	{"delete-in-place", "", func(v *vnode, key string) wire.Reply { // as a session does
		c := v.text()
		c.Send("delete " + key + "\r\n")
		if a := c.Line(); a != "DELETED" {
			return notStored(a)
		}
		return wire.Reply{}
	}},
}

func notStored(why string) wire.Reply {
	return wire.Reply{Status: wire.NotStored, Message: []byte(why)}
}

// TestFailpointMidWrite checks that a write is executed once, and succeeds, if its owner
// hands the key over in the middle of it: before the change is made or after it, and
// whether the next owner has asked for the partition by then or not.
func TestFailpointMidWrite(t *testing.T) {
	for point, at := range map[string]failpoint.Point{"before": failpoint.WriteDue, "after": failpoint.WriteDone} {
		for name, h := range handovers {
			for _, voters := range policies {
				t.Run(fmt.Sprint(point, " ", name, " ", len(voters), " voters"), func(t *testing.T) {
					withNodes(t, 3, nil, Namespace{}, func(w *world) { midWrite(w, at, h.begin, h.undo) }, voters...)
				})
			}
		}
	}
}

func midWrite(w *world, at failpoint.Point, begin, undo func(*vnode)) {
	v, moved := w.nodes[1], 0
	for _, o := range midWrites {
		for i := range 5 {
			key := w.keyAt(v, fmt.Sprint(o.name, i))
			v.set(key, "1")
			failpoint.Do(at, func() { begin(v) })
			if r := o.write(v, key); r.Status != wire.OK {
				w.t.Errorf("%s: %v %s", o.name, r.Status, r.Message)
			}
			time.Sleep(5 * time.Second)
			if w.ownerOf(key) != v {
				moved++
			}
			if r := w.nodes[0].get(key, wire.Fresh); string(r.Value) != o.value {
				w.t.Errorf("%s: then it is %q, want %q", o.name, r.Value, o.value)
			}
			undo(v)
			w.agreed(15 * time.Second)
			time.Sleep(5 * time.Second)
		}
	}
	if moved < 20 {
		w.t.Errorf("only %d of 30 keys moved", moved)
	}
}

// keyAt returns a key that a node owns.
func (w *world) keyAt(v *vnode, prefix string) string {
	return keysIn(v.s, DefaultNamespace, prefix+"-", true, 1)[0]
}
