package namespaces

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// A reload may put another origin in the place of a namespace's own. Loads and writes
// that are at the old one then go on there, and the last of them closes it. Its counts
// stay.

// pastOrigins are the earlier origins of a slot.
type pastOrigins struct {
	mu   sync.Mutex
	open []*Origin         // that still have calls under way
	sum  loader.GuardStats // of the closed ones
}

// add notes that an origin is not configured any more, and closes it once its calls have
// ended. Nothing but Table.Close waits for the closing: a pool waits for its connections,
// and a reload often takes out an origin that does not answer.
func (p *pastOrigins) add(o *Origin, closing *sync.WaitGroup) {
	p.mu.Lock()
	o.gone = func() {
		closing.Go(func() { // ends with Close
			_ = o.Close() // nothing is lost
			p.closed(o)
		})
	}
	p.open = append(p.open, o)
	p.mu.Unlock()
	o.leave()
}

func (p *pastOrigins) closed(o *Origin) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = slices.DeleteFunc(p.open, func(other *Origin) bool { return other == o })
	sumUp(&p.sum, o.Guard.Stats())
}

// stats returns the counts of all origins so far. The state is that of the present one,
// which may be nil.
func (p *pastOrigins) stats(present *Origin) (s loader.GuardStats) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if present != nil {
		s = present.Guard.Stats()
	}
	sumUp(&s, p.sum)
	for _, o := range p.open {
		if o != present {
			sumUp(&s, o.Guard.Stats())
		}
	}
	return s
}

// sumUp adds the counts that STATS shows.
func sumUp(s *loader.GuardStats, more loader.GuardStats) {
	s.Calls += more.Calls
	s.Opened += more.Opened
	s.Retries += more.Retries
	s.ShedQueue += more.ShedQueue
	s.ShedRate += more.ShedRate
	s.ShedBreaker += more.ShedBreaker
}

// Load asks the origin that the name has now, within its limits: a load that began just
// before a reload brings what the new origin has. If the name has none any more, it asks
// the one that the caller has found.
func (ns *Namespace) Load(ctx context.Context, key []byte) (loader.Value, error) {
	o, err := ns.enterOrigin()
	if err != nil {
		return loader.Value{}, err
	}
	defer o.leave()
	if o != ns.Origin { // its key_pattern may be another one than that which has let the key pass
		if err := o.Keys.Check(key); err != nil {
			return loader.Value{}, err
		}
	}
	ctx, ended := ns.within(ctx, key)
	defer ended()
	return o.Load(ctx, key)
}

func (ns *Namespace) enterOrigin() (*Origin, error) {
	for {
		now := ns.Now()
		switch {
		case now.Origin != nil && now.Origin.enter():
			return now.Origin, nil
		case now.Origin == nil && ns.Origin.enter():
			return ns.Origin, nil
		case now.Origin == nil:
			return nil, fmt.Errorf("%w: it has been taken out of the configuration", loader.ErrBusy)
		case now == ns.Now():
			return nil, flight.ErrClosed
		}
	}
}

// Writing reports whether a key is being written through. See WriteThrough.Writes.
func (ns *Namespace) Writing(h kv.Hash) bool { return ns.Now().through.Writes(h) }

// SupersedeWrite notes a late write of a key. See WriteThrough.SupersedeWrite.
func (ns *Namespace) SupersedeWrite(h kv.Hash) { ns.Now().through.SupersedeWrite(h) }
