package cluster

import (
	"log/slog"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestOldCertificates checks that a certificate of more than an hour ago brings its state to a host that
// has none, and never makes a feed be in time, nor takes the place of a younger one.
func TestOldCertificates(t *testing.T) {
	clock := &still{}
	clock.boot.Store(int64(100 * time.Hour))
	n, err := New(Config{
		Self: kv.Process{Node: "a", Epoch: 1}, Clock: clock, Versions: kv.NewHLC(1), Delegate: noDelegate{}, Mirror: noDelegate{},
		Feeds: []Feed{{Name: "shop", MaxLag: time.Hour}}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	now := 100 * time.Hour
	is := func(what, state string, want bool) {
		t.Helper()
		if _, late, _ := n.FeedLag("shop"); late != want || n.FeedState("shop") != state {
			t.Errorf("%s: late: %v, state %q, want %v, %q", what, late, n.FeedState("shop"), want, state)
		}
	}
	heard := func(ageMS uint64, state string) {
		n.driver.heardOf([]wire.Certified{{Feed: "other"}, {Feed: "shop", AgeMS: ageMS, State: state}}, now)
	}
	is("at the start", "", true)
	heard(1<<63, "old")
	is("an old one", "old", true)
	heard(uint64((2 * time.Hour).Milliseconds()), "older")
	is("another old one", "old", true)
	n.Certified("shop", now-50*time.Minute, "young")
	is("a young one", "young", false)
	heard(uint64((3 * time.Hour).Milliseconds()), "old")
	is("an old one again", "young", false)
	heard(1000, string(make([]byte, maxState+1)))
	is("one with a long state", "young", false)
	clock.boot.Add(int64(20 * time.Minute))
	now += 20 * time.Minute
	n.CheckPause(now)
	is("20 minutes later", "young", true)
	heard(uint64((9 * time.Hour).Milliseconds()), "old") // its age is cut to what is younger than that one
	is("an old one at the end", "young", true)
}
