package engine

import (
	"context"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/shm"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// RegionRest is how long a region stays after an app has asked for it, at least, and how long none
// is made after it could not be.
const RegionRest = 10 * time.Second

// Regions is the shared memory of this host's apps. Each principal has a region of its own, with what its
// apps have asked for: to read a region is to see all keys that are in it.
type Regions struct {
	*deps
	access *access.Rules
	list   atomic.Pointer[[]*region] // such a list is never changed

	mu     sync.Mutex // held while a region is made or ended
	socket string
	size   regionBytes   // of all regions; zero: there are none
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

func (m *Regions) all() []*region {
	if list := m.list.Load(); list != nil {
		return *list
	}
	return nil
}

func (m *Regions) find(of *access.Principal) *region {
	for _, r := range m.all() {
		if r.of == *of {
			return r
		}
	}
	return nil
}

// Offered reports whether there may be regions.
func (m *Regions) Offered() bool { return m.SharedMemory.Limit.Load() > 0 }

// RegionOf returns the region of a principal, for wire.Request; nil: none.
func (m *Regions) RegionOf(of *access.Principal) any {
	if r := m.find(of); r != nil {
		return r.Region
	}
	return nil
}

// OpenRegion opens the region of a principal, which is made if there is none. The caller closes the file.
func (m *Regions) OpenRegion(of *access.Principal) (*os.File, wire.Shared, *wire.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.Clock.Read().Boot
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
func (m *Regions) makeLocked(of *access.Principal, now time.Duration) (*region, *wire.Error) {
	if m.size == 0 {
		return nil, cannotShare("it has ended")
	}
	if !m.access.Present(of) { // no reload would end the region
		return nil, wire.Errorf(wire.Busy, "access has just changed: ask again")
	}
	file := m.first
	if file == nil {
		m.endUnusedLocked(now)
		size := m.roomLocked(of.UID)
		if size == 0 {
			return nil, wire.Errorf(wire.Busy, "other users, tokens or rights have the %s of shared_size: "+
				"raise it, or read over the socket", m.size)
		}
		if m.failed != 0 && now-m.failed < RegionRest {
			return nil, cannotShare("there was no room a moment ago")
		}
		var err error
		if file, err = shm.Create(m.socket, size); err != nil {
			m.failed = now
			m.logNoMemory(err)
			return nil, cannotShare("there is no room")
		}
	}
	m.first = nil
	r := &region{
		Region: m.SharedMemory.Attach(file, uint64(m.Node.Self().Epoch), m.Config.Cluster.Bound, of.MayRead),
		of:     *of, file: file,
	}
	list := append(slices.Clone(m.all()), r)
	m.list.Store(&list)
	return r, nil
}

func (m *Regions) logNoMemory(err error) {
	m.Config.Log.Warn("apps share no memory, and read over the socket: lower shared_size, or make room",
		"shared_size", m.size, "error", err)
}

// regionBytes is a number of bytes, whose text has a unit.
type regionBytes int64

func (n regionBytes) String() string { return humanize.IBytes(uint64(n)) }

// roomLocked returns the size of a user's next region: three quarters for the first one, and then
// half of what is left. A user that has some leaves twice as much for each to others. Zero: there
// is no room.
func (m *Regions) roomLocked(uid int) int64 {
	left, least := int64(m.size), int64(shm.MinSize)
	for _, r := range m.all() {
		left -= r.Size()
		if r.of.UID == uid {
			least *= 2
		}
	}
	switch {
	case left < least:
		return 0
	case left == int64(m.size):
		return max(left/4*3, shm.MinSize)
	}
	return max(left/2, shm.MinSize)
}

// endUnusedLocked ends the regions that no process has any more.
func (m *Regions) endUnusedLocked(now time.Duration) {
	m.endLocked(func(r *region) bool { return now-r.asked >= RegionRest && !r.file.Used() })
}

// endLocked ends and erases some regions: their apps read over the socket until they ask again.
func (m *Regions) endLocked(which func(*region) bool) {
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
		m.SharedMemory.End(r.Region)
		m.removeLocked(r.file)
	}
}

func (m *Regions) removeLocked(f *shm.File) {
	if err := f.Remove(); err != nil {
		m.Config.Log.Warn("the file of the shared memory stays: remove it", "error", err)
	}
}

// EndAll ends all regions, since access has changed: an app may have lost a right.
func (m *Regions) EndAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.endLocked(func(*region) bool { return true })
}

// MakeRoom makes room for the regions of a socket, once this process serves it. size is in bytes; zero: there
// are to be none. Those that an earlier process has left may be read until then. If they cannot be ended,
// MakeRoom waits until nothing is served from them any more: before that no write may be acknowledged.
func (m *Regions) MakeRoom(ctx context.Context, socket string, size int64) {
	ended, err := shm.EndOthers(socket)
	if err != nil {
		wait := cluster.Margin(m.Config.Cluster.Bound)
		m.Config.Log.Warn("the shared memory of an earlier process cannot be ended: waiting until it is too old",
			"error", err, "wait", wait)
		kv.Sleep(ctx, wait)
	} else if ended > 0 {
		m.Config.Log.Info("ended the shared memory of a process that did not end in order", "files", ended)
	}
	if size == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.socket, m.size = socket, regionBytes(size)
	if m.first, err = shm.Create(socket, m.roomLocked(0)); err != nil {
		m.logNoMemory(err)
		m.size = 0
	}
	m.SharedMemory.Limit.Store(int64(m.size))
}

// Close ends all regions: from now on apps read over the socket.
func (m *Regions) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.SharedMemory.Limit.Store(0)
	m.size = 0
	m.endLocked(func(*region) bool { return true })
	if m.first != nil {
		m.removeLocked(m.first)
		m.first = nil
	}
}
