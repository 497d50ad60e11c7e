package engine_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/shm"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// regionRules give two groups rights, so that a user may have three kinds of apps.
var regionRules = access.Config{Namespaces: map[string]access.Grants{
	"a": {Read: []string{"group:60001"}}, "b": {Read: []string{"group:60002"}},
}}

// sharingHost returns a host that has room for regions, and a function that asks for the one
// of a user in some groups.
func sharingHost(t *testing.T, size int64) (h *onehost.Host, clock *onehost.Clock, ask func(uid int, groups ...int) (wire.Shared, *wire.Error)) {
	t.Helper()
	clock = onehost.NewClock()
	h = onehost.New(t, onehost.Config{Clock: clock, Access: regionRules})
	h.Regions.MakeRoom(context.Background(), filepath.Join(t.TempDir(), "s"), size)
	t.Cleanup(h.Regions.Close)
	return h, clock, func(uid int, groups ...int) (wire.Shared, *wire.Error) {
		f, offer, bad := h.Regions.OpenRegion(of(h, uid, groups...))
		if bad != nil {
			return offer, bad
		}
		defer f.Close()
		return offer, nil
	}
}

func of(h *onehost.Host, uid int, groups ...int) *access.Principal {
	by := h.Access.Caller(unixsock.Peer{UID: uid, Groups: groups})
	return by.Principal()
}

// The first region has three quarters, and a further one half of what is left. A user that has
// several leaves the more to others. Beyond that it is told so, and no app loses a region.
func TestRegionSizes(t *testing.T) {
	h, _, ask := sharingHost(t, 16<<20)
	var files []string
	for _, tc := range []struct {
		uid    int
		groups []int
		want   int64 // MiB; zero: BUSY
	}{
		{uid: 1, want: 12},
		{uid: 1, groups: []int{60001}, want: 2},
		{uid: 1, groups: []int{60002}}, // twice two would be left to others
		{uid: 2, want: 1},
		{uid: 2, groups: []int{60001}},
		{uid: 3, want: 1},
		{uid: 4},
		{uid: 1, groups: []int{60001}, want: 2}, // it has one
		{uid: 1, groups: []int{7}, want: 12},    // no rule knows this group
	} {
		offer, bad := ask(tc.uid, tc.groups...)
		size := offer.Size
		files = append(files, offer.Path)
		if size != tc.want<<20 || (bad == nil) != (tc.want > 0) || bad != nil && bad.Status != wire.Busy {
			t.Errorf("user %d in %v: %d bytes, %v, want %d MiB", tc.uid, tc.groups, size, bad, tc.want)
		}
	}
	h.Regions.Close()
	for _, path := range slices.DeleteFunc(files, func(path string) bool { return path == "" }) {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Error("a file is still there", err)
		}
	}
	if _, bad := ask(1); bad == nil || bad.Status != wire.Unavailable {
		t.Errorf("after the end: %v", bad)
	}
}

// A region that no process has any more makes room, once it has not been asked for a while.
func TestUnusedRegionMakesRoom(t *testing.T) {
	h, clock, ask := sharingHost(t, 4<<20)
	f, _, bad := h.Regions.OpenRegion(of(h, 1))
	if bad != nil {
		t.Fatal(bad)
	}
	m, err := shm.Map(f)
	testenv.Must(t, errors.Join(err, f.Close()))
	if offer, bad := ask(2); offer.Size != 1<<20 {
		t.Fatal(offer, bad)
	}
	if _, bad := ask(3); bad == nil || bad.Status != wire.Busy {
		t.Errorf("at once: %v", bad)
	}
	clock.Skip(engine.RegionRest)
	if offer, bad := ask(3); offer.Size != 1<<20 {
		t.Errorf("after a while: %v", bad)
	}
	if h.Regions.RegionOf(of(h, 2)) != nil || m.Closed() {
		t.Error("it is not the unused one that has made room")
	}
	clock.Skip(engine.RegionRest)
	if offer, bad := ask(4); offer.Size != 1<<20 || m.Closed() {
		t.Errorf("beside one that is mapped: %+v, %v", offer, bad)
	}
}
