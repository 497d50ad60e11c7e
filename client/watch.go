package client

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// WatchOptions configures a Watch. The zero value reports every change.
type WatchOptions struct {
	// Keys are keys of the client's namespace; Watch reports changes of these keys only,
	// at most 1,024. If there are none, Watch reports every change, also in other
	// namespaces: an event contains a key's hash, but not its namespace.
	Keys []string
	// All reports the flushes of all namespaces, not only those that concern the
	// client's.
	All bool
	// Beat is the time without events after which Watch reports a Beat. Default 1 s, at
	// most an hour.
	Beat time.Duration
}

// Watch reports changes in the whole cluster as the sidecar on this host hears of them,
// until ctx or the loop over it ends. It asks for more only after the loop's body has
// returned, and buffers nothing: a loop that is too slow gets a Reset.
//
// An error means that the stream was interrupted. Watch continues with a Reset, unless
// the error is ErrBadRequest, ErrUnsupported, ErrUnauthorized or ErrClosed.
func (c *Client) Watch(ctx context.Context, o WatchOptions) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		o.Beat = cmp.Or(o.Beat, time.Second)
		if len(o.Keys) > wire.MaxKeys || o.Beat < time.Millisecond || o.Beat > time.Hour {
			yield(Event{}, fmt.Errorf("%w: to watch %d keys with a beat of %v: give at most %d, and 1ms to 1h",
				cachesidecar.ErrBadRequest, len(o.Keys), o.Beat, wire.MaxKeys))
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(c.closed, cancel)()
		f := newFeed(c.shared, c.namespace, o.Beat)
		defer f.slot.Close()
		if o.All {
			f.options = wire.All
		}
		for tries := 0; ; tries++ {
			w, err := f.next(ctx)
			switch {
			case c.closed.Err() != nil:
				yield(Event{}, cachesidecar.ErrClosed)
				return
			case ctx.Err() != nil:
				return
			case err != nil:
				if !yield(Event{}, err) || final(err) {
					return
				}
				pauseAfter(ctx, tries)
				continue
			}
			tries = 0
			if !f.tell(&w, o.Keys, yield) {
				return
			}
		}
	}
}
