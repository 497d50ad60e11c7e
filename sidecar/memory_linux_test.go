package sidecar

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/shm"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// regionRules give two groups rights, so that a user may have three kinds of apps.
var regionRules = map[string]Grants{"a": {Read: []string{"group:60001"}}, "b": {Read: []string{"group:60002"}}}

func regionConfig(size Size, rules map[string]Grants, clock kv.Clock) Config {
	return Config{NoSocket: true, L2Size: 8 << 20, SharedSize: size, Access: rules, clock: clock}
}

// sharingHost returns a sidecar that has room for regions, and a function that asks for the one
// of a user in some groups.
func sharingHost(t *testing.T, size Size) (s *Sidecar, clock *stoppedClock, ask func(uid int, groups ...int) (int64, *wire.Error)) {
	t.Helper()
	clock = &stoppedClock{now: kv.Moment{Wall: 1, Boot: regionRest}}
	s, err := New(regionConfig(size, regionRules, clock))
	if err != nil {
		t.Fatal(err)
	}
	s.memory.begin(context.Background(), &s.cfg, filepath.Join(t.TempDir(), "s"))
	t.Cleanup(func() {
		s.memory.end()
		_ = s.engine.Store.Close()
	})
	return s, clock, func(uid int, groups ...int) (int64, *wire.Error) {
		f, offer, bad := s.memory.Open(of(s, uid, groups...))
		if bad != nil {
			return 0, bad
		}
		defer f.Close()
		return offer.Size, nil
	}
}

func of(s *Sidecar, uid int, groups ...int) *access.Principal {
	by := s.engine.Access.Caller(unixsock.Peer{UID: uid, Groups: groups})
	return by.Principal()
}

// The first region has three quarters, and a further one half of what is left. A user that has
// several leaves the more to others. Beyond that it is told so, and no app loses a region.
func TestRegionSizes(t *testing.T) {
	s, _, ask := sharingHost(t, 16<<20)
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
		size, bad := ask(tc.uid, tc.groups...)
		if size != tc.want<<20 || (bad == nil) != (tc.want > 0) || bad != nil && bad.Status != wire.Busy {
			t.Errorf("user %d in %v: %d bytes, %v, want %d MiB", tc.uid, tc.groups, size, bad, tc.want)
		}
	}
	files := s.memory.all()
	s.memory.end()
	for _, r := range files {
		if _, err := os.Stat(r.file.Path); !os.IsNotExist(err) {
			t.Error("a file is still there", err)
		}
	}
	if _, bad := ask(1); bad == nil || bad.Status != wire.Unavailable {
		t.Errorf("after the end: %v", bad)
	}
}

// A region that no process has any more makes room, once it has not been asked for a while.
func TestUnusedRegionMakesRoom(t *testing.T) {
	s, clock, ask := sharingHost(t, 4<<20)
	f, _, bad := s.memory.Open(of(s, 1))
	if bad != nil {
		t.Fatal(bad)
	}
	m, err := shm.Map(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if size, bad := ask(2); size != 1<<20 {
		t.Fatal(size, bad)
	}
	if _, bad := ask(3); bad == nil || bad.Status != wire.Busy {
		t.Errorf("at once: %v", bad)
	}
	clock.now.Boot += regionRest
	if size, bad := ask(3); size != 1<<20 {
		t.Errorf("after a while: %v", bad)
	}
	if s.memory.Region(of(s, 2)) != nil || m.Closed() {
		t.Error("it is not the unused one that has made room")
	}
	clock.now.Boot += regionRest
	if size, bad := ask(4); size != 1<<20 || m.Closed() {
		t.Errorf("beside one that is mapped: %d, %v", size, bad)
	}
}

// A principal of earlier rules gets no region, which no reload would end.
func TestRegionOfEarlierRules(t *testing.T) {
	s, _, ask := sharingHost(t, 4<<20)
	before := of(s, 1)
	if _, bad := ask(1); bad != nil {
		t.Fatal(bad)
	}
	fewer := map[string]Grants{"a": {Read: []string{"group:60001"}}}
	if _, err := s.Apply(t.Context(), regionConfig(4<<20, fewer, nil)); err != nil {
		t.Fatal(err)
	}
	if n := len(s.memory.all()); n != 0 {
		t.Errorf("%d regions after the reload", n)
	}
	if _, _, bad := s.memory.Open(before); bad == nil || bad.Status != wire.Busy {
		t.Errorf("by the earlier rules: %v", bad)
	}
	if _, bad := ask(1); bad != nil {
		t.Error(bad)
	}
}
