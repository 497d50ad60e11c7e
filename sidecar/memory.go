package sidecar

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/shm"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Bounds of shared_size.
const (
	maxShared     = 1 << 30
	defaultShared = 32 << 20
)

// regionRest is how long a region stays after an app has asked for it, at least, and how long none
// is made after it could not be.
const regionRest = 10 * time.Second

// sharedDefault returns the default of shared_size.
func (c *Config) sharedDefault() Size {
	if !shm.Supported || c.NoSocket {
		return Off
	}
	return min(max(c.L2Size/8, shm.MinSize), defaultShared)
}

// memory is the regions of this host's apps. Each principal has its own, with what its apps have
// asked for: to read a region is to see all keys that are in it.
type memory struct {
	engine *engine.Engine
	list   atomic.Pointer[[]*region] // such a list is never changed

	mu     sync.Mutex // held while a region is made or ended
	socket string
	bound  time.Duration
	log    *slog.Logger
	size   int64         // of all regions; zero: there are none
	first  *shm.File     // for the first app that asks; nil: it has asked
	failed time.Duration // on the boot clock: when a region could not be made; zero: never
}

// region is the region of a principal.
type region struct {
	*shm.Region
	of    access.Principal
	file  *shm.File
	asked time.Duration // on the boot clock: when an app has asked for it last
}

func (m *memory) all() []*region {
	if list := m.list.Load(); list != nil {
		return *list
	}
	return nil
}

func (m *memory) find(of *access.Principal) *region {
	for _, r := range m.all() {
		if r.of == *of {
			return r
		}
	}
	return nil
}

// Offered implements session.Memory.
func (m *memory) Offered() bool { return m.engine.SharedMemory.Limit.Load() > 0 }

// Region implements session.Memory.
func (m *memory) Region(of *access.Principal) any {
	if r := m.find(of); r != nil {
		return r.Region
	}
	return nil
}

// Open implements session.Memory.
func (m *memory) Open(of *access.Principal) (*os.File, wire.Shared, *wire.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.engine.Clock.Read().Boot
	r := m.find(of)
	if r == nil {
		var err *wire.Error
		if r, err = m.makeLocked(of, now); err != nil {
			return nil, wire.Shared{}, err
		}
	}
	r.asked = now
	f, err := r.file.Open()
	if err != nil {
		return nil, wire.Shared{}, cannotShare(err)
	}
	return f, wire.Shared{
		Layout: shm.Layout, Size: r.Size(), ID: r.file.ID, Counter: r.Count(), Path: r.file.Path,
	}, nil
}

func cannotShare(why any) *wire.Error {
	return wire.Errorf(wire.Unavailable, "the shared memory: %v", why)
}

// makeLocked makes the region of a principal that has none.
func (m *memory) makeLocked(of *access.Principal, now time.Duration) (*region, *wire.Error) {
	if m.size == 0 {
		return nil, cannotShare("it has ended")
	}
	if !m.engine.Access.Present(of) { // no reload would end the region
		return nil, wire.Errorf(wire.Busy, "access has just changed: ask again")
	}
	file := m.first
	if file == nil {
		m.endUnusedLocked(now)
		size := m.roomLocked(of.UID)
		if size == 0 {
			return nil, wire.Errorf(wire.Busy, "other users, tokens or rights have the %s of shared_size: "+
				"raise it, or read over the socket", Size(m.size))
		}
		if m.failed != 0 && now-m.failed < regionRest {
			return nil, cannotShare("there was no room a moment ago")
		}
		var err error
		if file, err = shm.Create(m.socket, size); err != nil {
			m.failed = now
			noMemory(m.log, m.size, err)
			return nil, cannotShare("there is no room")
		}
	}
	m.first = nil
	r := &region{
		Region: m.engine.SharedMemory.Attach(file, uint64(m.engine.Node.Self().Epoch), m.bound, of.MayRead),
		of:     *of, file: file,
	}
	list := append(slices.Clone(m.all()), r)
	m.list.Store(&list)
	return r, nil
}

func noMemory(log *slog.Logger, size int64, err error) {
	log.Warn("apps share no memory, and read over the socket: lower shared_size, or make room",
		"shared_size", Size(size), "error", err)
}

// roomLocked returns the size of a user's next region: three quarters for the first one, and then
// half of what is left. A user that has some leaves twice as much for each to others. Zero: there
// is no room.
func (m *memory) roomLocked(uid int) int64 {
	left, least := m.size, int64(shm.MinSize)
	for _, r := range m.all() {
		left -= r.Size()
		if r.of.UID == uid {
			least *= 2
		}
	}
	switch {
	case left < least:
		return 0
	case left == m.size:
		return max(left/4*3, shm.MinSize)
	}
	return max(left/2, shm.MinSize)
}

// endUnusedLocked ends the regions that no process has any more.
func (m *memory) endUnusedLocked(now time.Duration) {
	m.endLocked(func(r *region) bool { return now-r.asked >= regionRest && !r.file.Used() })
}

// endLocked ends and erases some regions: their apps read over the socket until they ask again.
func (m *memory) endLocked(which func(*region) bool) {
	var stay, ended []*region
	for _, r := range m.all() {
		if which(r) {
			ended = append(ended, r)
		} else {
			stay = append(stay, r)
		}
	}
	m.list.Store(&stay)
	for _, r := range ended {
		m.engine.SharedMemory.End(r.Region)
		m.removeLocked(r.file)
	}
}

func (m *memory) removeLocked(f *shm.File) {
	if err := f.Remove(); err != nil {
		m.log.Warn("the file of the shared memory stays: remove it", "error", err)
	}
}

// endAll ends all regions, since access has changed: an app may have lost a right.
func (m *memory) endAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.endLocked(func(*region) bool { return true })
}

// begin makes room for the regions of a socket, once this process serves it. Those that an
// earlier process has left may be read until then. If they cannot be ended, begin waits until
// nothing is served from them any more: before that no write may be acknowledged.
func (m *memory) begin(ctx context.Context, cfg *Config, socket string) {
	ended, err := shm.EndOthers(socket)
	if err != nil {
		wait := cluster.Margin(cfg.MaxStaleness)
		cfg.Log.Warn("the shared memory of an earlier process cannot be ended: waiting until it is too old",
			"error", err, "wait", wait)
		kv.Sleep(ctx, wait)
	} else if ended > 0 {
		cfg.Log.Info("ended the shared memory of a process that did not end in order", "files", ended)
	}
	if cfg.SharedSize == Off {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.socket, m.bound, m.log, m.size = socket, cfg.MaxStaleness, cfg.Log, int64(cfg.SharedSize)
	if m.first, err = shm.Create(socket, m.roomLocked(0)); err != nil {
		noMemory(m.log, m.size, err)
		m.size = 0
	}
	m.engine.SharedMemory.Limit.Store(m.size)
}

// end ends all regions: from now on apps read over the socket.
func (m *memory) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.engine.SharedMemory.Limit.Store(0)
	m.size = 0
	m.endLocked(func(*region) bool { return true })
	if m.first != nil {
		m.removeLocked(m.first)
		m.first = nil
	}
}

// endRegions ends the shared memory of a sidecar that has no connection any more.
func endRegions(s *Sidecar) {
	s.sessions.Close()
	s.memory.end()
}
