package engine_test

import (
	"fmt"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/handoff"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// arriving is a host to which the entries of all partitions come from a process that cannot
// be asked.
type arriving struct {
	*onehost.Host
	src  *handoff.Source
	asOf kv.Version // of the release
}

func newArriving(t *testing.T) *arriving {
	t.Helper()
	a := &arriving{Host: onehost.New(t, onehost.Config{})}
	a.src = &handoff.Source{
		From:   kv.Process{Node: "gone", Epoch: 1},
		Ballot: kv.Ballot{Clock: 1, Process: a.Node.Self()}, Generations: map[uint16]uint16{},
	}
	for p := range uint16(kv.Partitions) {
		a.src.Generations[p] = a.Store.Generation(p)
		a.Handoff.Incoming[p].Store(a.src)
	}
	a.asOf = a.HLC.Next(a.Clock.Read().Wall)
	return a
}

// version is that of the entries on their way.
func (a *arriving) version() uint64 { return uint64(a.asOf - 1) }

// comes lets the entry of a key come, with the value "1", and reports whether it is stored.
func (a *arriving) comes(namespace, key string) bool {
	e := wire.Entry{Namespace: namespace, Key: []byte(key), Value: []byte("1"), Version: a.version()}
	return a.Handoff.Restore(a.src, &e, a.asOf, a.Clock.Read())
}

// absentOps are the operations whose answer or effect depends on the present entry, and the
// answer if its last owner cannot be asked.
func absentOps(version uint64) map[string]struct {
	q    wire.Request
	says wire.Status
} {
	type op = struct {
		q    wire.Request
		says wire.Status
	}
	set := func(m wire.Mode, o wire.Options, compare uint64) op {
		return op{wire.Request{Op: wire.OpSet, Mode: m, Options: o, Compare: compare, Value: []byte("2")}, wire.Unavailable}
	}
	get := func(by wire.Op, o wire.Options, says wire.Status) op {
		return op{wire.Request{Op: by, Options: o}, says}
	}
	del := func(o wire.Options, compare uint64, says wire.Status) op {
		return op{wire.Request{Op: wire.OpDelete, Options: o, Compare: compare}, says}
	}
	return map[string]op{
		"ADD":                     set(wire.ModeAdd, 0, 0),
		"REPLACE":                 set(wire.ModeReplace, 0, 0),
		"SET with a version":      set(wire.ModeCAS, 0, version),
		"the same, stale":         set(wire.ModeCAS, wire.StaleOK, version),
		"APPEND":                  set(wire.ModeAppend, 0, 0),
		"PREPEND that creates":    set(wire.ModePrepend, wire.Create, 0),
		"INCR":                    {wire.Request{Op: wire.OpIncr, Delta: 1}, wire.Unavailable},
		"INCR that creates":       {wire.Request{Op: wire.OpIncr, Delta: 1, Create: true}, wire.Unavailable},
		"TOUCH":                   {wire.Request{Op: wire.OpTouch, TTLMS: 60_000}, wire.Unavailable},
		"METAGET":                 get(wire.OpMetaGet, 0, wire.Unavailable),
		"METAGET that touches":    get(wire.OpMetaGet, wire.Touch, wire.Unavailable),
		"METAGET that ends":       get(wire.OpMetaGet, wire.Touch|wire.CacheOnly, wire.Unavailable),
		"METAGET that claims":     get(wire.OpMetaGet, wire.Claim|wire.Create, wire.Unavailable),
		"GET":                     get(wire.OpGet, 0, wire.Miss),
		"GET, fresh":              get(wire.OpGet, wire.Fresh, wire.Unavailable),
		"LEASE":                   get(wire.OpLease, 0, wire.Lease),
		"LEASE, fresh":            get(wire.OpLease, wire.Fresh, wire.Unavailable),
		"MGET":                    get(wire.OpMGet, 0, wire.Miss),
		"MGET, fresh":             get(wire.OpMGet, wire.Fresh, wire.Unavailable),
		"DELETE with a version":   del(0, version, wire.Unavailable),
		"the same, soft":          del(wire.Soft, version, wire.Unavailable),
		"DELETE":                  del(0, 0, wire.Miss),
		"DELETE, soft":            del(wire.Soft, 0, wire.Miss),
		"DELETE of a write's end": del(wire.LateWrite, 0, wire.Miss),
	}
}

// TestOnItsWayIsNotAbsent checks all operations whose answer or effect depends on the present
// entry, of a key whose entry is on its way here. While the entry's last owner cannot be
// asked, no answer says that the key is absent and leaves the value to come, except that of a
// read without fresh. What has no answer is UNAVAILABLE and has changed nothing.
func TestOnItsWayIsNotAbsent(t *testing.T) {
	byBoth(t, func(t *testing.T, by func(*onehost.Host) asks) {
		a := newArriving(t)
		do := by(a.Host)
		for name, o := range absentOps(a.version()) {
			for _, namespace := range []string{namespaces.Default, fmt.Sprint("new", len(name))} {
				q := o.q
				q.Namespace = []byte(namespace)
				if q.Key = []byte(name); q.Op == wire.OpMGet || q.Op == wire.OpDelete {
					q.Keys, q.Key = [][]byte{q.Key}, nil
				}
				r := do(q)
				if len(r.Items) == 1 {
					r = r.Items[0]
				}
				if r.Status != o.says {
					t.Errorf("%s in %q: %s %s, want %s", name, namespace, r.Status, r.Message, o.says)
				}
				gone := q.Op == wire.OpDelete && r.Status == wire.Miss
				if a.comes(namespace, name) == gone {
					t.Errorf("%s in %q: %s, and then the entry is stored: %v", name, namespace, r.Status, !gone)
				}
			}
		}
	})
}

// TestPresentIsNotAskedFor checks that an entry which is here already is taken for the present
// one, although its last owner cannot be asked.
func TestPresentIsNotAskedFor(t *testing.T) {
	byBoth(t, func(t *testing.T, by func(*onehost.Host) asks) {
		a := newArriving(t)
		do := by(a.Host)
		for name, o := range absentOps(a.version()) {
			q := o.q
			if q.Key = []byte(name); q.Op == wire.OpMGet || q.Op == wire.OpDelete {
				q.Keys, q.Key = [][]byte{q.Key}, nil
			}
			if !a.comes(namespaces.Default, name) {
				t.Fatalf("%s: the entry is refused", name)
			}
			r := do(q)
			if len(r.Items) == 1 {
				r = r.Items[0]
			}
			want := wire.OK
			if q.Op == wire.OpSet && q.Mode == wire.ModeAdd {
				want = wire.Exists
			}
			if r.Status != want {
				t.Errorf("%s: %s %s, want %s", name, r.Status, r.Message, want)
			}
		}
	})
}

// TestDeletionOfManyOnTheirWay checks that a deletion of many keys asks for those that are on
// their way here, and answers each key on its own.
func TestDeletionOfManyOnTheirWay(t *testing.T) {
	byBoth(t, func(t *testing.T, by func(*onehost.Host) asks) {
		a := newArriving(t)
		a.comes(namespaces.Default, "here")
		r := by(a.Host)(wire.Request{Op: wire.OpDelete, Keys: [][]byte{[]byte("here"), []byte("coming"), []byte("here too")}})
		if len(r.Items) != 3 || r.Items[0].Status != wire.OK || r.Items[1].Status != wire.Miss || r.Items[1].Version == 0 {
			t.Errorf("%+v", r)
		}
		for _, key := range []string{"here", "coming", "here too"} {
			if a.comes(namespaces.Default, key) {
				t.Errorf("%s came in after its deletion", key)
			}
		}
	})
}
