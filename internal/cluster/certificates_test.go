package cluster

import (
	"log/slog"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
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
	testenv.Must(t, err)
	now := 100 * time.Hour
	is := func(what, state string, want bool) {
		t.Helper()
		if _, late, _ := n.FeedLag("shop"); late != want || n.FeedCheckpoint("shop") != state {
			t.Errorf("%s: late: %v, state %q, want %v, %q", what, late, n.FeedCheckpoint("shop"), want, state)
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

// TestYoungMachine checks that a machine which was started after the last certificate of a feed learns its state,
// and is late; that it tells others of it; and that what is younger takes its place.
func TestYoungMachine(t *testing.T) {
	for _, up := range []time.Duration{1, time.Second, 5 * time.Minute, 10 * time.Minute} {
		clock := &still{}
		clock.boot.Store(int64(up))
		n, err := New(Config{
			Self: kv.Process{Node: "a", Epoch: 1}, Clock: clock, Versions: kv.NewHLC(1), Delegate: noDelegate{}, Mirror: noDelegate{},
			Feeds: []Feed{{Name: "shop", MaxLag: time.Minute}, {Name: "unbounded"}}, Log: slog.New(slog.DiscardHandler),
		})
		testenv.Must(t, err)
		is := func(what, state string, wantLate bool) {
			t.Helper()
			for _, feed := range n.cfg.Feeds {
				_, late, bounded := n.FeedLag(feed.Name)
				if want := wantLate && feed.MaxLag > 0; late != want || bounded != (feed.MaxLag > 0) {
					t.Errorf("up for %v, %s: %s is late: %v, bounded: %v", up, what, feed.Name, late, bounded)
				}
				if got := n.FeedCheckpoint(feed.Name); got != state {
					t.Errorf("up for %v, %s: the state of %s is %q, want %q", up, what, feed.Name, got, state)
				}
			}
		}
		heard := func(age time.Duration, state string) {
			ms := uint64(age.Milliseconds())
			n.driver.heardOf([]wire.Certified{{Feed: "shop", AgeMS: ms, State: state}, {Feed: "unbounded", AgeMS: ms, State: state}}, up)
		}
		is("at the start", "", true)
		heard(8*time.Minute, "old")
		is("an old one", "old", true)
		heard(9*time.Minute, "older")
		is("an older one", "old", true)
		if list := n.driver.state.feeds.ages(up); len(list) != 2 || list[0].State != "old" ||
			time.Duration(list[0].AgeMS)*time.Millisecond < 8*time.Minute {
			t.Errorf("up for %v: it tells %+v", up, list)
		}
		heard(7*time.Minute, "younger")
		is("a younger one", "younger", true)
		heard(time.Second, "young")
		is("a young one", "young", false)
	}
}
