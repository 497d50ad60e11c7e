package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
)

// Kind is the kind of an Event.
type Kind uint8

// The kinds of events.
const (
	Changed Kind = iota // a key was written, touched or deleted
	Raised              // some partitions have changed; their keys are not known
	Flushed             // a namespace was emptied
	Reset               // earlier changes are not known; the first event is a Reset
	Beat                // no events came; all changes until now were reported
)

var kindNames = [...]string{"changed", "raised", "flushed", "reset", "beat"}

func (kind Kind) String() string { return kindNames[kind] }

// Event is a change that the sidecar has heard of.
type Event struct {
	Kind       Kind
	Key        string   // of Changed, if it is one of WatchOptions.Keys
	Namespace  string   // of Flushed, and of events with a Key; "": all namespaces
	Hash       uint64   // of Changed: the key's hash
	Version    uint64   // of the change; of Flushed: older values are gone
	Partitions []uint16 // of Raised
}

// final reports whether an error ends the stream, since another try would fail too.
func final(err error) bool {
	return errors.Is(err, cachesidecar.ErrBadRequest) || errors.Is(err, cachesidecar.ErrUnsupported) ||
		errors.Is(err, cachesidecar.ErrUnauthorized) || errors.Is(err, cachesidecar.ErrClosed)
}

// pauseAfter pauses. The pause grows with the number of tries, up to a second, and has jitter.
func pauseAfter(ctx context.Context, tries int) {
	most := min(10*time.Millisecond<<min(tries, 10), time.Second)
	kv.Sleep(ctx, most/2+rand.N(most/2))
}

// feed is a position in the sidecar's stream. It has a connection of its own, so that its
// answers do not wait behind a long one.
type feed struct {
	slot      *slot
	namespace []byte
	options   wire.Options
	wait      time.Duration

	conn       *rpc.Client // where the position is valid; nil before the first answer
	welcome    *wire.Welcome
	epoch, seq uint64
}

// newFeed returns a feed whose questions wait for an event. A nil namespace is the
// connection's default.
func newFeed(s *shared, namespace []byte, wait time.Duration) *feed {
	return &feed{slot: newSlot(s), namespace: namespace, wait: wait}
}

// next asks for the events after the position. After any error the next answer is a
// reset.
func (f *feed) next(ctx context.Context) (w wire.Watched, err error) {
	conn, err := f.slot.get(ctx)
	for f.slot.again(ctx, err) {
		conn, err = f.slot.get(ctx)
	}
	if err != nil {
		f.conn = nil
		return w, err
	}
	if conn != f.conn {
		f.conn, f.epoch, f.seq = conn, 0, 0
		if f.welcome = f.slot.welcomeOf(conn); f.welcome == nil {
			f.conn = nil
			return w, fmt.Errorf("%w: the connection has ended", cachesidecar.ErrUnavailable)
		}
	}
	if err = f.askEvents(ctx, &w); errors.Is(err, rpc.ErrRetiring) {
		f.conn = nil
		return f.next(ctx) // the sidecar closes, and has not got the question
	} else if err != nil {
		f.conn = nil
		return w, err
	}
	f.epoch, f.seq = w.Epoch, w.Seq
	return w, nil
}

func (f *feed) askEvents(ctx context.Context, w *wire.Watched) error {
	timeout := f.wait + f.slot.shared.cfg.RequestTimeout
	return askBody(ctx, f.conn, timeout, &wire.Request{
		Op: wire.OpWatch, Namespace: f.namespace, Options: f.options, Epoch: f.epoch, Seq: f.seq,
		TimeoutMS: uint32(min(timeout.Milliseconds(), wire.MaxTimeout)), WaitMS: uint32(f.wait.Milliseconds()),
	}, w)
}

// tell yields the events of an answer, for some keys or for all, and reports whether the
// loop goes on.
func (f *feed) tell(w *wire.Watched, keys []string, yield func(Event, error) bool) bool {
	if w.Reset {
		return yield(Event{Kind: Reset}, nil)
	}
	namespace := cmp.Or(string(f.namespace), f.slot.shared.cfg.Namespace, "default")
	var names map[uint64]string
	if len(keys) > 0 {
		if f.welcome.Hash.Name != wire.HashName {
			return yield(Event{}, fmt.Errorf(
				"%w: the sidecar hashes keys with %q, which this client does not know: watch without keys",
				cachesidecar.ErrUnsupported, f.welcome.Hash.Name))
		}
		names = make(map[uint64]string, len(keys))
		seed := kv.NamespaceSeed(f.welcome.Hash.Seed, namespace)
		for _, k := range keys {
			names[uint64(kv.HashKey(seed, []byte(k)))] = k
		}
	}
	more, told := true, false
	err := invalidation.WatchCodec.Each(&w.Events, func(c invalidation.Event) {
		e := Event{Kind: Kind(c.Kind), Hash: uint64(c.Hash), Version: uint64(c.Version)}
		switch e.Kind {
		case Changed:
			if names != nil {
				key, ok := names[e.Hash]
				if !ok {
					return
				}
				e.Key, e.Namespace = key, namespace
			}
		case Raised:
			e.Partitions = slices.Collect(c.Detail.Partitions.All())
		case Flushed:
			e.Namespace = c.Detail.Namespace
		}
		more = more && yield(e, nil)
		told = true
	})
	if err != nil { // an event of a later version, whose meaning is not known
		return more && yield(Event{Kind: Reset}, nil)
	}
	if more && !told && w.Seq == w.Head {
		more = yield(Event{Kind: Beat}, nil)
	}
	return more
}

// run follows the sidecar until ctx ends.
func (n *near) run(ctx context.Context, f *feed) {
	defer f.slot.Close()
	defer n.endStream()
	for tries := 0; ctx.Err() == nil; tries++ {
		sent := n.clock.Read().Boot
		w, err := f.next(ctx)
		if err != nil {
			n.endStream()
			pauseAfter(ctx, tries)
			continue
		}
		tries = 0
		n.apply(sent, &w, f.welcome)
	}
}
