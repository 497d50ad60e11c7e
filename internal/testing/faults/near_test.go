package faults

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestProcessNearCache stops the owner of a key, so that an app's sidecar hears no more
// of it. The app's near copy is served for at most the sum of both bounds, and never
// longer than that after the key was overwritten.
func TestProcessNearCache(t *testing.T) {
	scenario(t, 20*time.Second)
	const own = 400 * time.Millisecond * slowness
	ctx := t.Context()
	g := newGroup(t, fast, 3)
	g.start(g.nodes)
	here, owner, other := g.nodes[0], g.nodes[1], g.nodes[2]
	near, err := client.Dial(ctx, client.Config{
		Socket: here.spec.Socket, DialTimeout: testenv.Patience, RequestTimeout: appTimeout,
		NearCache: client.NearCache{Bytes: 1 << 20, Bound: own}, NoSharedMemory: true, // what comes from there is not kept
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	key := ""
	for i := 0; ; i++ {
		key = "near" + strconv.Itoa(i)
		if place, err := here.app.Ring(ctx, key); err == nil && place.AssignedOwner == owner.spec.Node && place.Owner == place.AssignedOwner {
			break
		}
	}
	kept := func(value string) error {
		it, err := near.Get(ctx, key, cachesidecar.GetOptions{})
		if err == nil && (string(it.Value) != value || it.Source != "near") {
			return errors.New("it is " + string(it.Value) + " from " + it.Source)
		}
		return err
	}
	testenv.Succeeds(t, "the first write", func() error {
		_, err := other.app.Set(ctx, key, []byte("1"), cachesidecar.SetOptions{})
		return err
	})
	testenv.Succeeds(t, "the value to be kept", func() error { return kept("1") })

	owner.pause()
	stopped := time.Now()
	var lastNear, written time.Time
	read := func() {
		now := time.Now()
		it, err := near.Get(ctx, key, cachesidecar.GetOptions{})
		switch {
		case err != nil:
		case string(it.Value) == "1" && !written.IsZero() && now.Sub(written) > g.bound+own:
			t.Fatalf("the old value from %s, %v after it was overwritten", it.Source, now.Sub(written))
		case string(it.Value) == "1" && it.Source == "near":
			lastNear = now
		}
		time.Sleep(time.Millisecond)
	}
	for time.Since(stopped) < 2*(g.bound+own) {
		read()
	}
	if lastNear.IsZero() || lastNear.Sub(stopped) > g.bound+own {
		t.Errorf("the value was served from here until %v after its owner had stopped, want until at most %v", lastNear.Sub(stopped), g.bound+own)
	}
	testenv.Succeeds(t, "a host to take over the key", func() error {
		defer read()
		_, err := other.app.Set(ctx, key, []byte("2"), cachesidecar.SetOptions{})
		if err == nil {
			written = time.Now()
		}
		return err
	})
	for time.Since(written) < 2*(g.bound+own) {
		read()
	}
	testenv.Succeeds(t, "the new value to be kept", func() error { return kept("2") })
	owner.resume()
	for resumed := time.Now(); time.Since(resumed) < 2*g.bound; {
		read()
	}
	t.Logf("served from here until %v after the owner had stopped; bounds %v and %v; %+v", lastNear.Sub(stopped), g.bound, own, near.NearStats())
}
