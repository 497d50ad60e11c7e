package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/cachesidecar/cachesidecar/gossip"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
)

// Limits of greetings of unknown processes. A process may be invented by an attacker, and
// so may its address.
const (
	meetRate   = 20  // a second
	meetBurst  = 128 // at once: a hundred hosts may start together
	meetsAtMax = 32  // in flight
	meetEvery  = 50 * time.Millisecond
	firstRetry = 100 * time.Millisecond // doubles, for a name
	lastRetry  = 4 * time.Second
	maxTried   = 1024 // names that have not answered
)

// attempts decides when unknown processes are greeted. It is safe for concurrent use.
type attempts struct {
	mu    sync.Mutex
	tried map[string]*tried // by name
	met   Met
}

// tried is a name that has not answered.
type tried struct {
	next  time.Time
	pause time.Duration
	why   string
}

func (a *attempts) stats() Met {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.met
}

// begin reports whether a process should be greeted now.
func (a *attempts) begin(u *gossip.Unknown, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tried == nil {
		a.tried = map[string]*tried{}
	}
	t := a.tried[u.Node]
	switch {
	case t == nil:
		a.makeRoom(now)
		t = &tried{}
		a.tried[u.Node] = t
	case now.Before(t.next):
		return false
	}
	t.pause = min(max(2*t.pause, firstRetry), lastRetry)
	// The time of the next try, unless this greeting succeeds before.
	t.next = now.Add(t.pause/2 + rand.N(t.pause))
	return true
}

// makeRoom makes room for an entry: it drops old entries first, then any.
func (a *attempts) makeRoom(now time.Time) {
	if len(a.tried) < maxTried {
		return
	}
	for k, t := range a.tried {
		if now.Sub(t.next) > 2*lastRetry {
			delete(a.tried, k)
		}
	}
	for k := range a.tried {
		if len(a.tried) < maxTried {
			return
		}
		delete(a.tried, k)
	}
}

// end records the result of a greeting.
func (a *attempts) end(u *gossip.Unknown, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.met.Failed++
	} else {
		a.met.Greeted++
	}
	if t := a.tried[u.Node]; t != nil && err != nil {
		t.why = err.Error()
	} else {
		delete(a.tried, u.Node)
	}
}

// failure returns the error of the last greeting, or "".
func (a *attempts) failure(u *gossip.Unknown) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t := a.tried[u.Node]; t != nil {
		return t.why
	}
	return ""
}

// greeter greets the processes that only gossip knows of, so that they become
// acquaintances.
type greeter struct {
	driver        *driver
	pool          *peer.Pool
	acquaintances *acquaintances
	attempts      attempts
}

// run greets unknown processes, until ctx ends.
func (gr *greeter) run(ctx context.Context, g *gossip.Gossip) {
	limit, places := rate.NewLimiter(meetRate, meetBurst), make(chan struct{}, meetsAtMax)
	t := time.NewTicker(meetEvery)
	defer t.Stop()
	for {
		for _, u := range gr.candidates(g) {
			if gr.acquaintances.set.has(processOf(&u)) {
				g.Met(u.Node) // the process was met before gossip told of it
				continue
			}
			if limit.Tokens() < 1 {
				break
			}
			if !gr.attempts.begin(&u, time.Now()) {
				continue
			}
			limit.Allow()
			select {
			case places <- struct{}{}:
			case <-ctx.Done():
				return
			}
			gr.driver.running.tasks.Go(func() { // ends with its dial
				defer func() { <-places }()
				gr.greet(ctx, &u)
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-g.UnknownChanged():
			kv.Sleep(ctx, time.Millisecond) // many may arrive together
		case <-t.C:
		}
	}
}

// candidates lists the processes to greet: those at join addresses first, the others in
// random order.
func (gr *greeter) candidates(g *gossip.Gossip) []gossip.Unknown {
	list := g.Unknown()
	joined := 0
	for joined < len(list) && list[joined].Joined {
		joined++
	}
	rest := list[joined:]
	rand.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	return list
}

// greet greets a process. A process that refuses counts as met.
func (gr *greeter) greet(ctx context.Context, u *gossip.Unknown) {
	id := processOf(u)
	err := gr.pool.Meet(ctx, id, u.Meta.Address)
	if errors.Is(err, peer.ErrRefused) {
		gr.acquaintances.meet(id)
	}
	gr.attempts.end(u, err)
	if err != nil {
		gr.driver.cfg.Log.Debug("a process that gossip tells of was not met",
			"node", u.Node, "address", u.Meta.Address, "error", err)
	}
}

// unknown lists the processes that only gossip knows of. The driver's lock is held.
func (gr *greeter) unknown() (list []Member) {
	g := gr.driver.running.gossip
	if g == nil {
		return nil
	}
	for _, u := range g.Unknown() {
		if gr.driver.members[kv.NodeID(u.Node)] != nil { // known by an earlier process
			continue
		}
		why := gr.attempts.failure(&u)
		if why == "" {
			why = "not greeted yet"
		}
		list = append(list, Member{
			ID: processOf(&u), Address: u.Meta.Address, State: StateUnknown, Stranger: true,
			Why: fmt.Sprintf("gossip alone tells of it: %s", why),
		})
	}
	return list
}
