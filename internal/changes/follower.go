package changes

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Host is the sidecar that follows a feed.
type Host interface {
	// Leads reports whether this host is the one that does what stands under a name. changed is
	// closed when that may have changed.
	Leads(name string) (leads bool, changed <-chan struct{})
	// Outdate deletes keys from the cache, and tries until each owner has done so, or ctx ends.
	Outdate(ctx context.Context, namespace string, keys [][]byte) error
	// FlushAll empties a namespace on all hosts, and tries until that is done, or ctx ends.
	FlushAll(ctx context.Context, namespace string) error
	// Now is the boot clock.
	Now() time.Duration
	// Certified says that everything is deleted that readers of a feed's origin saw at a moment of it, and
	// where the stream was then.
	Certified(name string, at time.Duration, from loader.Checkpoint)
	// FeedCheckpoint returns the checkpoint with which a feed was certified last, as far as this host has heard.
	FeedCheckpoint(name string) loader.Checkpoint
}

// Follower follows one feed.
type Follower struct {
	name string
	feed loader.Feed
	host Host
	log  *slog.Logger
	tell Tell

	Times

	gap    loader.Gap // what the next stream does not know; it and told are of Run alone
	told   string     // the error that the log has
	counts counts
}

// Times are times of a feed.
type Times struct {
	MaxLag time.Duration // bounds the lag; zero: nothing does
	Heard  time.Duration // in which all hosts hear of a certificate
}

// Tell returns what apps may be told of an error and what to do about it, which are no words of the server, and the
// error for the log, without secrets.
type Tell func(err error) (told, remedy string, logged error)

// New returns a Follower that does not run yet.
func New(name string, feed loader.Feed, times Times, host Host, log *slog.Logger, tell Tell) *Follower {
	f := &Follower{name: name, feed: feed, Times: times, host: host, log: log.With("changes", name), tell: tell}
	f.counts.setState(Elsewhere)
	return f
}

// Times between tries.
const (
	firstPause = 100 * time.Millisecond
	mostPause  = 2 * time.Second
	unfitPause = 10 * time.Second // until the server may fit the settings
	gapPause   = 30 * time.Second // between two beginnings that flush
)

// Run follows the feed, whenever this host is the one to do so, until ctx ends.
func (f *Follower) Run(ctx context.Context) {
	pause := firstPause
	for ctx.Err() == nil {
		leads, changed := f.host.Leads(f.name)
		if !leads {
			f.counts.setState(Elsewhere)
			pause = firstPause
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		lead, stop := f.whileLeading(ctx)
		began := time.Now()
		err := f.follow(lead)
		f.missed(err)
		if lead.Err() == nil { // else this host is not the one any more, or ends, whatever failed
			pause = f.wait(lead, err, began, pause)
		}
		stop()
	}
}

// wait waits after an error, while this host is the one to follow. It returns the next pause.
func (f *Follower) wait(lead context.Context, err error, began time.Time, pause time.Duration) time.Duration {
	told, remedy, logged := f.tell(err)
	f.counts.failed("its server " + told + ": " + remedy +
		`; this host's log has its words: look for "the feed of changes has ended"`)
	if text := logged.Error(); text != f.told {
		f.told = text
		f.log.Warn("the feed of changes has ended: what changes is found out when it goes on", "error", logged)
	}
	if errors.Is(err, loader.ErrFeed) {
		kv.Sleep(lead, unfitPause)
		return firstPause
	}
	if time.Since(began) > unfitPause {
		pause = firstPause
	}
	kv.Sleep(lead, pause)
	return min(2*pause, mostPause)
}

// missed notes that an error may leave out changes. That holds until a stream has closed the gap, also if
// another host follows meanwhile: it has not heard of the error.
func (f *Follower) missed(err error) {
	switch {
	case f.gap != "":
	case errors.Is(err, loader.ErrFeed): // a table was out of the publication, for example
		f.gap = "the server did not fit the settings for some time"
	case errors.Is(err, loader.ErrGap):
		told, _, _ := f.tell(err)
		f.gap = loader.Gap("the server " + told)
	}
}

// whileLeading returns a context that ends when this host is not the one to follow any more.
func (f *Follower) whileLeading(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with ctx
		defer cancel()
		for {
			leads, changed := f.host.Leads(f.name)
			if !leads {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, cancel
}
