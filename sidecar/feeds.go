package sidecar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/changes"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/origin"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/loader"
)

// check returns what is wrong with the settings of a feed that concern the sidecar.
func (feed *Feed) check(staleness time.Duration) error {
	if feed.MaxLag != 0 && (feed.MaxLag < 4*staleness || feed.MaxLag > time.Hour) {
		return settings.Problemf("max_lag", "%v: give at least %v, four times max_staleness, and at most 1h; or 0 "+
			"for no bound",
			feed.MaxLag, settings.TimeText(4*staleness))
	}
	return nil
}

// maxFeeds bounds the feeds of a sidecar.
const maxFeeds = 16

// openFeeds opens the feeds of changes, which asks no server.
func (c *Config) openFeeds() (map[string]loader.Feed, error) {
	var wrong settings.Problems
	if len(c.Feeds) > maxFeeds {
		wrong.Addf("changes", ": %d feeds are given: give at most %d", len(c.Feeds), maxFeeds)
	}
	feeds := map[string]loader.Feed{}
	for _, name := range slices.Sorted(maps.Keys(c.Feeds)) {
		one := c.Feeds[name]
		wrong.Add(settings.Within("changes."+name, one.check(c.MaxStaleness)))
		if one.Source == nil {
			wrong.Addf("changes."+name, ": nothing is given: give Source")
			continue
		}
		f, err := one.Source.Open()
		if err != nil {
			wrong.Add(settings.Within("changes."+name+"."+one.Source.Kind(), err))
		}
		feeds[name] = f
	}
	wrong.Add(shareSlots(feeds))
	return feeds, wrong.Err()
}

// certifiedFeeds returns what a node is to know of the feeds.
func certifiedFeeds(cfg *Config, feeds map[string]loader.Feed) (list []cluster.Feed) {
	for _, name := range slices.Sorted(maps.Keys(feeds)) {
		f := cluster.Feed{Name: name, Namespaces: feeds[name].Namespaces(), MaxLag: cfg.Feeds[name].MaxLag}
		list = append(list, f)
	}
	return list
}

// slotted is a feed that follows a slot of its server, which it shares with no other.
type slotted interface {
	Slot() string
	Beside(slots []string)
}

// shareSlots tells feeds of one another's slots. It refuses two of one slot, which would fail in turn. Two
// names of one server are not noticed: one of the feeds says at run time that its slot is in use.
func shareSlots(feeds map[string]loader.Feed) error {
	var wrong settings.Problems
	of := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(feeds)) {
		f, has := feeds[name].(slotted)
		if !has {
			continue
		}
		slot := f.Slot()
		if other, taken := of[slot]; taken {
			wrong.Addf("changes."+name, ": %s is that of changes.%s already, and one feed alone can follow it: "+
				"give each feed a slot of its own, also if their databases differ", slot, other)
			continue
		}
		of[slot] = name
	}
	for _, f := range feeds {
		if f, has := f.(slotted); has {
			f.Beside(slices.Collect(maps.Keys(of)))
		}
	}
	return wrong.Err()
}

// fed returns the namespaces whose keys a feed makes of rows: of each row it knows one spelling.
func (c *Config) fed() map[string]bool {
	all := map[string]bool{}
	for _, one := range c.Feeds {
		if f, maps := one.Source.(interface{ Mapped() []string }); maps {
			for _, namespace := range f.Mapped() {
				all[namespace] = true
			}
		}
	}
	return all
}

// keyForms returns regular expressions that all keys match which are loaded or filled in a namespace.
type keyForms func(ctx context.Context, namespace string) ([]string, error)

// giveForms tells the feeds that ask for them where they find the forms of keys.
func giveForms(feeds map[string]loader.Feed, of keyForms) {
	for _, f := range feeds {
		if f, asks := f.(interface {
			KeyForms(of func(context.Context, string) ([]string, error))
		}); asks {
			f.KeyForms(of)
		}
	}
}

// keyForms opens the origin of a namespace to find them.
func (c *Config) keyForms(ctx context.Context, name string) ([]string, error) {
	cfg := c.namespaces()
	ns := cfg.Configured[name]
	o, err := namespaces.OpenOrigin(name, ns, &cfg)
	if err != nil {
		return nil, err
	}
	if o == nil {
		return slices.DeleteFunc([]string{ns.KeyPattern}, func(s string) bool { return s == "" }), nil
	}
	forms, err := o.KeyForms(ctx)
	return forms, errors.Join(err, o.Close())
}

// askFeed is what to do about a feed that has failed, if its kind of failure says no more.
const askFeed = "`cachesidecar config check --ask-origins FILE` asks it and shows its answer"

// feedRemedies are what to do about a feed that has failed, by the kind of failure: see origin.Told.
var feedRemedies = map[string]string{
	"misfit": askFeed + ", and `cachesidecar changes sql FILE` the statements that prepare it",
	"gap": "the feed flushes its namespaces and goes on; if that comes again and again, make transactions shorter, " +
		"and see that standbys answer",
	"unreachable": "see that it runs, and that the DSN leads to it",
	"timeout":     "see that it runs and is not overloaded, and that the DSN leads to it",
}

// followers follow the feeds of a sidecar.
type followers []*changes.Follower

func newFollowers(c *Config, e *engine.Engine, feeds map[string]loader.Feed) (list followers) {
	giveForms(feeds, e.Namespaces.KeyForms)
	for _, f := range feeds {
		if f, takes := f.(interface{ ChargeTo(loader.Memory) }); takes {
			f.ChargeTo(e.Origins)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(feeds)) {
		hide := origin.Secrets(feeds[name].Secrets())
		tell := func(err error) (told, remedy string, logged error) {
			kind, told := origin.Told(err)
			return told, cmp.Or(feedRemedies[kind], askFeed), hide.Hide(err)
		}
		times := changes.Times{MaxLag: c.Feeds[name].MaxLag, Heard: 2 * c.MaxStaleness}
		list = append(list, changes.New(name, feeds[name], times, e, c.Log, tell))
	}
	return list
}

// stats returns the feeds' part of STATS.
func (f followers) stats(c *Config, node *cluster.Node) (list []cachesidecar.ChangesStats) {
	for _, one := range f {
		st := one.Stats()
		if age, late, bounded := node.FeedLag(st.Name); bounded {
			st.MaxLagMS, st.Late = c.Feeds[st.Name].MaxLag.Milliseconds(), late
			st.CertifiedMS = (age + time.Millisecond - 1).Milliseconds()
		}
		list = append(list, st)
	}
	return list
}

// FeedAnswer is how the server of a feed of changes has answered to AskFeeds.
type FeedAnswer struct {
	Feed     string
	Kind     string
	Warnings []string // what works and is dangerous
	Err      error    // nil if it fits the settings; shows no secret
}

// AskFeeds asks the server of each feed whether the settings fit it, until ctx ends.
func (c Config) AskFeeds(ctx context.Context) (list []FeedAnswer, err error) {
	feeds, err := c.openFeeds()
	if err != nil {
		return nil, err
	}
	if c, err = c.withDefaults(); err != nil {
		return nil, err
	}
	giveForms(feeds, c.keyForms)
	for _, name := range slices.Sorted(maps.Keys(feeds)) {
		a := FeedAnswer{Feed: name, Kind: c.Feeds[name].Source.Kind()}
		hide := origin.Secrets(feeds[name].Secrets())
		a.Warnings, err = feeds[name].Check(ctx)
		if a.Err = hide.Hide(err); err != nil && ctx.Err() != nil {
			a.Err = fmt.Errorf("no answer within the timeout: %w", a.Err)
		}
		for _, namespace := range feeds[name].Namespaces() {
			if _, configured := c.Namespaces[namespace]; !configured {
				a.Warnings = append(a.Warnings, fmt.Sprintf("namespace %s is not configured: the feed deletes its "+
					"keys all the same; is the name misspelt?", namespace))
			}
		}
		list = append(list, a)
	}
	return list, nil
}

// FeedSQL returns the statements that prepare the servers of the feeds.
func (c Config) FeedSQL() (text string, err error) {
	feeds, err := c.openFeeds()
	if err != nil {
		return "", err
	}
	for _, name := range slices.Sorted(maps.Keys(feeds)) {
		text += feeds[name].SQL()
	}
	return text, nil
}
