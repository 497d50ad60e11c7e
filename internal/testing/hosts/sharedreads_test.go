package hosts

import (
	"context"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/calls"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/shm"
	"github.com/cachesidecar/cachesidecar/internal/testing/history"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// In a world whose memory is shared each host has apps that read the shared memory of its sidecar,
// also while the sidecar does not run, and after it was killed.

// vregion is the shared memory of a process, as an app has it.
type vregion struct {
	reader *shm.Reader // nil: none
	by     string      // the process
}

// shareMemory begins the shared memory of all processes, those that will start included. Nothing is read there before.
func (w *world) shareMemory() {
	if w.shares {
		return
	}
	w.shares = true
	for _, v := range w.nodes {
		if v.s != nil {
			v.attach(v.s)
		}
	}
}

// attach begins the shared memory of a process, and maps it for the host's apps.
func (v *vnode) attach(s *Sidecar) {
	if !v.w.shares || !shm.Supported {
		return
	}
	if v.socket == "" {
		v.socket = filepath.Join(v.w.t.TempDir(), v.name)
		testenv.Must(v.w.t, os.WriteFile(v.socket, nil, 0o600))
	}
	m := s.engine.Regions
	m.MakeRoom(context.Background(), v.socket, int64(s.cfg.SharedSize))
	f, body, bad := m.OpenRegion(theApp(s))
	if bad != nil {
		v.w.t.Fatal(bad)
	}
	defer f.Close()
	v.w.t.Cleanup(func() { // all that used it has ended
		s.engine.SharedMemory.Abandon()
		m.Close()
	})
	r, err := shm.Map(f)
	if err != nil || !r.Is(uint64(s.engine.Node.Self().Epoch), body.ID, body.Counter) {
		v.w.t.Fatal(err)
	}
	v.w.mu.Lock()
	v.region.reader = r
	v.w.mu.Unlock()
}

// theApp is the principal of all apps of a world.
func theApp(s *Sidecar) *access.Principal {
	by := s.engine.Access.Caller(unixsock.Peer{UID: os.Geteuid()})
	return by.Principal()
}

// readToShare asks a process for a key a few times, as apps do that have the shared memory.
// The second time it is published.
func (w *world) readToShare(s *Sidecar, k *vkey, times int) {
	if !w.shares {
		w.fail("no memory is shared")
	}
	leave, open := s.parts.Host.Enter()
	if !open {
		return
	}
	defer leave()
	b := namespaces.Pins{Table: s.engine.Namespaces}
	defer b.Release()
	now := s.engine.Clock.Read()
	s.engine.Node.CheckPause(now.Boot)
	q := &wire.Request{Op: wire.OpGet, Namespace: []byte(w.space), Key: k.name, Options: wire.Share, App: true}
	q.Region = s.engine.Regions.RegionOf(theApp(s))
	for range times {
		var r wire.Reply
		s.engine.Local.Value(nil, &b, q, k.name, math.MaxInt, now, 0, &r)
	}
}

// readShared reads a key from a host's shared memory and checks the answer. It returns the
// number of the write that was read; zero: none was.
func (w *world) readShared(v *vnode, k *vkey) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := v.region.reader
	if r == nil {
		return 0
	}
	view, ok := r.Find(w.space)
	if !ok {
		return 0
	}
	// An app's clock goes on while the sidecar is paused.
	f, ok, _ := r.Get(&view, view.Hash(k.name), k.name, time.Hour+time.Since(v.clock.origin))
	if !ok {
		return 0
	}
	read := w.beginLocked(history.Op{Key: string(k.name), Host: v.region.by})
	w.seen["shared hits"]++
	if v.paused || v.s == nil {
		w.seen["shared hits without a sidecar"]++
	}
	if f.Kind == kv.Absent {
		return w.told(k, read, nil, calls.Err(&wire.Reply{Status: wire.Miss, Why: wire.Absent}))
	}
	return w.told(k, read, f.Value, nil)
}

// readByMemory does one of both.
func (w *world) readByMemory(rnd *rand.Rand, k *vkey) {
	if s, _, _ := w.any(rnd); s != nil && rnd.IntN(2) == 0 {
		w.readToShare(s, k, 2)
	}
	w.mu.Lock()
	v := w.nodes[rnd.IntN(len(w.nodes))]
	w.mu.Unlock()
	w.readShared(v, k)
}
