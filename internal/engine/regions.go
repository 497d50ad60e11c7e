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

func (regions *Regions) all() []*region {
	if list := regions.list.Load(); list != nil {
		return *list
	}
	return nil
}

func (regions *Regions) find(of *access.Principal) *region {
	for _, r := range regions.all() {
		if r.of == *of {
			return r
		}
	}
	return nil
}

// Offered reports whether there may be regions.
func (regions *Regions) Offered() bool { return regions.SharedMemory.Limit.Load() > 0 }

// RegionOf returns the region of a principal, for wire.Request; nil: none.
func (regions *Regions) RegionOf(of *access.Principal) any {
	if r := regions.find(of); r != nil {
		return r.Region
	}
	return nil
}

// OpenRegion opens the region of a principal, which is made if there is none. The caller closes the file.
func (regions *Regions) OpenRegion(of *access.Principal) (*os.File, wire.Shared, *wire.Error) {
	regions.mu.Lock()
	defer regions.mu.Unlock()
	now := regions.Clock.Read().Boot
	r := regions.find(of)
	if r == nil {
		var err *wire.Error
		if r, err = regions.makeLocked(of, now); err != nil {
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
func (regions *Regions) makeLocked(of *access.Principal, now time.Duration) (*region, *wire.Error) {
	if regions.size == 0 {
		return nil, cannotShare("it has ended")
	}
	if !regions.access.Present(of) { // no reload would end the region
		return nil, wire.Errorf(wire.Busy, "access has just changed: ask again")
	}
	file := regions.first
	if file == nil {
		regions.endUnusedLocked(now)
		size := regions.roomLocked(of.UID)
		if size == 0 {
			return nil, wire.Errorf(wire.Busy, "other users, tokens or rights have the %s of shared_size: "+
				"raise it, or read over the socket", regions.size)
		}
		if regions.failed != 0 && now-regions.failed < RegionRest {
			return nil, cannotShare("there was no room a moment ago")
		}
		var err error
		if file, err = shm.Create(regions.socket, size); err != nil {
			regions.failed = now
			regions.logNoMemory(err)
			return nil, cannotShare("there is no room")
		}
	}
	regions.first = nil
	epoch, bound := uint64(regions.Node.Self().Epoch), regions.Config.Cluster.Bound
	r := &region{Region: regions.SharedMemory.Attach(file, epoch, bound, of.MayRead), of: *of, file: file}
	list := append(slices.Clone(regions.all()), r)
	regions.list.Store(&list)
	return r, nil
}

func (regions *Regions) logNoMemory(err error) {
	regions.Config.Log.Warn("apps share no memory, and read over the socket: lower shared_size, or make room",
		"shared_size", regions.size, "error", err)
}

// regionBytes is a number of bytes, whose text has a unit.
type regionBytes int64

func (n regionBytes) String() string { return humanize.IBytes(uint64(n)) }

// roomLocked returns the size of a user's next region: three quarters for the first one, and then
// half of what is left. A user that has some leaves twice as much for each to others. Zero: there
// is no room.
func (regions *Regions) roomLocked(uid int) int64 {
	left, least := int64(regions.size), int64(shm.MinSize)
	for _, r := range regions.all() {
		left -= r.Size()
		if r.of.UID == uid {
			least *= 2
		}
	}
	switch {
	case left < least:
		return 0
	case left == int64(regions.size):
		return max(left/4*3, shm.MinSize)
	}
	return max(left/2, shm.MinSize)
}

// endUnusedLocked ends the regions that no process has any more.
func (regions *Regions) endUnusedLocked(now time.Duration) {
	regions.endLocked(func(r *region) bool { return now-r.asked >= RegionRest && !r.file.Used() })
}

// endLocked ends and erases some regions: their apps read over the socket until they ask again.
func (regions *Regions) endLocked(which func(*region) bool) {
	var stay, ended []*region
	for _, r := range regions.all() {
		if which(r) {
			ended = append(ended, r)
		} else {
			stay = append(stay, r)
		}
	}
	regions.list.Store(&stay)
	for _, r := range ended {
		regions.SharedMemory.End(r.Region)
		regions.removeLocked(r.file)
	}
}

func (regions *Regions) removeLocked(f *shm.File) {
	if err := f.Remove(); err != nil {
		regions.Config.Log.Warn("the file of the shared memory stays: remove it", "error", err)
	}
}

// EndAll ends all regions, since access has changed: an app may have lost a right.
func (regions *Regions) EndAll() {
	regions.mu.Lock()
	defer regions.mu.Unlock()
	regions.endLocked(func(*region) bool { return true })
}

// MakeRoom makes room for the regions of a socket, once this process serves it. size is in bytes; zero: there
// are to be none. Those that an earlier process has left may be read until then. If they cannot be ended,
// MakeRoom waits until nothing is served from them any more: before that no write may be acknowledged.
func (regions *Regions) MakeRoom(ctx context.Context, socket string, size int64) {
	ended, err := shm.EndOthers(socket)
	if err != nil {
		wait := cluster.Margin(regions.Config.Cluster.Bound)
		regions.Config.Log.Warn("the shared memory of an earlier process cannot be ended: waiting until it is too old",
			"error", err, "wait", wait)
		kv.Sleep(ctx, wait)
	} else if ended > 0 {
		regions.Config.Log.Info("ended the shared memory of a process that did not end in order", "files", ended)
	}
	if size == 0 {
		return
	}
	regions.mu.Lock()
	defer regions.mu.Unlock()
	regions.socket, regions.size = socket, regionBytes(size)
	if regions.first, err = shm.Create(socket, regions.roomLocked(0)); err != nil {
		regions.logNoMemory(err)
		regions.size = 0
	}
	regions.SharedMemory.Limit.Store(int64(regions.size))
}

// Close ends all regions: from now on apps read over the socket.
func (regions *Regions) Close() {
	regions.mu.Lock()
	defer regions.mu.Unlock()
	regions.SharedMemory.Limit.Store(0)
	regions.size = 0
	regions.endLocked(func(*region) bool { return true })
	if regions.first != nil {
		regions.removeLocked(regions.first)
		regions.first = nil
	}
}
