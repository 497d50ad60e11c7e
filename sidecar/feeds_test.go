package sidecar

import (
	"slices"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/loader/postgres"
)

// TestFeedNeedsRestart checks that a reload names each changed setting of a feed, without secrets.
func TestFeedNeedsRestart(t *testing.T) {
	feed := func(slot string) *Config {
		return &Config{Feeds: map[string]Feed{"shop": {Source: postgres.FeedConfig{
			DSN: "password=s3cret", Slot: slot,
			Tables: map[string]postgres.FeedTable{"public." + slot: {Namespace: "users", Key: "{id}"}},
		}}}}
	}
	hide := func(text string) string { return text }
	if got := (differences{restart: true, hide: hide}).between(feed("one"), feed("one")); len(got) != 0 {
		t.Errorf("nothing has changed: %v", got)
	}
	got := differences{restart: true, hide: hide}.between(feed("one"), feed("two"))
	want := map[string]bool{
		"changes.shop.postgres.slot": true, "changes.shop.postgres.tables.public.one": true,
		"changes.shop.postgres.tables.public.two": true,
	}
	for _, c := range got {
		if !want[c.Setting] {
			t.Errorf("%+v has changed", c)
		}
		delete(want, c.Setting)
	}
	if len(want) != 0 {
		t.Errorf("%v is not named", want)
	}
}

// slotFeed is a feed of a slot.
type slotFeed struct {
	loader.Feed
	loader.FeedConfig
	slot   string
	beside []string
}

func (f *slotFeed) Open() (loader.Feed, error) { return f, nil }
func (f *slotFeed) Slot() string               { return f.slot }
func (f *slotFeed) Beside(slots []string)      { f.beside = slots }

// TestFeedsKnowSlots checks that each feed hears of the slots of all, which are not left behind.
func TestFeedsKnowSlots(t *testing.T) {
	a, b := &slotFeed{slot: "one"}, &slotFeed{slot: "two"}
	c := Config{Feeds: map[string]Feed{"a": {Source: a}, "b": {Source: b}}}
	if _, err := c.openFeeds(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*slotFeed{a, b} {
		if slices.Sort(f.beside); !slices.Equal(f.beside, []string{"one", "two"}) {
			t.Errorf("the feed of slot %s knows %q", f.slot, f.beside)
		}
	}
}

// TestOneFeedPerSlot checks that two feeds are refused that would follow one slot of one server, without its
// password, whichever way the DSN is written and whichever the database; and no others.
func TestOneFeedPerSlot(t *testing.T) {
	const dsn = "host=db port=5433 user=feed password=s3cret dbname=shop"
	for _, tc := range []struct {
		dsn, slot, want string
	}{
		{dsn, "", `slot "cachesidecar" of the server db:5433 is that of changes.a already`},
		{dsn, "cachesidecar", `slot "cachesidecar" of the server db:5433`},
		{"postgres://other:s3cret@db:5433/stock", "", "give each feed a slot of its own"},
		{dsn + " sslmode=disable", "", "changes.b: slot"},
		{dsn, "another", ""},
		{"postgres://feed:s3cret@db/shop", "", ""},
		{"postgres://feed:s3cret@db2:5433/shop", "", ""},
		{"host=db,db2 port=5433 user=feed password=s3cret", "", ""}, // which of them it is shows at run time
	} {
		c := Config{Feeds: map[string]Feed{}}
		tables := map[string]postgres.FeedTable{"public.users": {Namespace: "users", Key: "{id}"}}
		c.Feeds["a"] = Feed{Source: postgres.FeedConfig{DSN: dsn, Tables: tables}}
		c.Feeds["b"] = Feed{Source: postgres.FeedConfig{DSN: tc.dsn, Slot: tc.slot, Tables: tables}}
		err := c.Check()
		if tc.want == "" && err != nil && strings.Contains(err.Error(), "slot") {
			t.Errorf("%s, slot %q: %v", tc.dsn, tc.slot, err)
		}
		if tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "s3cret")) {
			t.Errorf("%s, slot %q: %v, want %q", tc.dsn, tc.slot, err, tc.want)
		}
	}
}
