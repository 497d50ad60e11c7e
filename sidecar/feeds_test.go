package sidecar

import (
	"testing"

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
