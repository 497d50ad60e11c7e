package cluster

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/gossip"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// acquaintances decides which of the processes that gossip tells of count. Gossip tells
// where a process may be found. Nothing else in it counts, because without a key anyone
// can send gossip. A process counts once it is an acquaintance:
//
//	met         the two processes have greeted each other over the peer port, whichever
//	            of them began, and even if the other refused this one
//	introduced  a process that was met says that this one is in
//
// A process is a name and an epoch. A later process of the same name is unknown again,
// and the earlier one keeps its place until the later one is known.
type acquaintances struct {
	self   kv.NodeID
	log    *slog.Logger
	driver *driver
	pool   *peer.Pool

	mu                         sync.Mutex // gossip calls known under its own lock
	met                        map[kv.Process]bool
	unknown                    map[seat]*unknown // bounded, see makeRoom
	forgotten, greeted, failed int64
}

func newAcquaintances(cfg *Config, d *driver, pool *peer.Pool) *acquaintances {
	return &acquaintances{
		self: cfg.Self.Node, log: cfg.Log, driver: d, pool: pool,
		met: map[kv.Process]bool{}, unknown: map[seat]*unknown{},
	}
}

// seat is a place for an unknown process: one for each join address, and one for each name
// elsewhere. Those at join addresses stay. Strangers can take all others in no time: so a
// new process takes the place of another one at random, and real ones are told of again.
type seat struct{ joined, node string }

// unknown is a process of which only gossip has told.
type unknown struct {
	id              kv.Process
	gossips, serves string // its addresses
	in              bool
	told            time.Time     // last
	next            time.Time     // when it may be greeted again
	pause           time.Duration // before that
	why             string        // the last greeting failed
}

// Bounds. A process may be invented by an attacker, and so may its addresses.
const (
	maxKnown   = 8192 // twice the members, two each
	maxUnknown = 256
	unknownFor = 30 * time.Second // since last told of; gossip tells of all each 15 s
	meetRate   = 20               // greetings a second
	meetBurst  = 128              // at once: a hundred hosts may start together
	meetsAtMax = 32               // in flight
	meetEvery  = 50 * time.Millisecond
	firstRetry = 100 * time.Millisecond // doubles
	lastRetry  = 4 * time.Second
	retellIn   = 20 * time.Millisecond
)

// known reports whether a process that gossip tells of counts, and notes one that does not.
func (a *acquaintances) known(m gossip.Member, joined bool) bool {
	id := kv.Process{Node: kv.NodeID(m.Node), Epoch: kv.Epoch(m.Meta.Epoch)}
	elsewhere, there := seat{node: m.Node}, seat{joined: m.Address}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.met[id] || failpoint.Out(failpoint.Acquaintance) {
		delete(a.unknown, elsewhere)
		delete(a.unknown, there)
		return true
	}
	at := elsewhere
	if joined {
		at = there
	}
	u := a.unknown[at]
	if u == nil {
		a.makeRoom()
		u = &unknown{}
		a.unknown[at] = u
	}
	u.id, u.gossips, u.serves, u.in, u.told = id, m.Address, m.Meta.Address, m.Meta.In, time.Now()
	return false
}

// makeRoom makes room for another unknown process.
func (a *acquaintances) makeRoom() {
	for at := range a.unknown {
		if len(a.unknown) < maxUnknown {
			return
		}
		if at.joined == "" {
			delete(a.unknown, at)
			a.forgotten++
		}
	}
}

// lately returns the processes that gossip has told of lately and that are unknown, those at
// join addresses first, the others in random order. The lock is held.
func (a *acquaintances) lately() []*unknown {
	var joined, others []*unknown
	for at, u := range a.unknown {
		switch {
		case time.Since(u.told) > unknownFor:
			delete(a.unknown, at)
		case at.joined != "":
			joined = append(joined, u)
		default:
			others = append(others, u)
		}
	}
	return append(joined, others...)
}

// due returns the unknown processes that are to be greeted now. Those that were met come
// without a limit: they are only to tell about themselves again.
func (a *acquaintances) due(limit *rate.Limiter) (list []unknown) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for _, u := range a.lately() {
		if now.Before(u.next) || !a.met[u.id] && !limit.AllowN(now, 1) {
			continue
		}
		u.pause = min(max(2*u.pause, firstRetry), lastRetry)
		u.next = now.Add(u.pause/2 + rand.N(u.pause))
		list = append(list, *u)
	}
	return list
}

// run greets unknown processes, until ctx ends.
func (a *acquaintances) run(ctx context.Context, g *gossip.Gossip) {
	var group errgroup.Group
	group.SetLimit(meetsAtMax)
	limit := rate.NewLimiter(meetRate, meetBurst)
	t := time.NewTicker(meetEvery)
	defer t.Stop()
	for ctx.Err() == nil {
		for _, u := range a.due(limit) {
			group.Go(func() error { a.greet(ctx, g, &u); return nil })
		}
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
	_ = group.Wait()
}

// greet greets a process. One that is there and refuses counts as met. Gossip has kept a
// process that is met from memberlist before, so the process is asked to tell about itself
// again, unless others have told of it meanwhile.
func (a *acquaintances) greet(ctx context.Context, g *gossip.Gossip, u *unknown) {
	var err error
	if met, _ := a.state(u.id); !met {
		err = a.pool.Meet(ctx, u.id, u.serves)
		if errors.Is(err, peer.ErrRefused) {
			a.meet(u.id)
		}
		a.note(u.id, err)
	}
	if met, _ := a.state(u.id); met {
		kv.Sleep(ctx, retellIn)
		if _, untold := a.state(u.id); untold && ctx.Err() == nil {
			err = g.Exchange(u.gossips)
		}
	}
	if err != nil {
		a.log.Debug("a process that gossip tells of was not met", "node", u.id.Node, "address", u.serves, "error", err)
	}
}

// state reports whether a process was met, and whether it is among the unknown ones: it is
// until gossip tells of it after it was met.
func (a *acquaintances) state(id kv.Process) (met, untold bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.met[id], a.find(id) != nil
}

// find returns an unknown process, or nil. The lock is held.
func (a *acquaintances) find(id kv.Process) *unknown {
	for _, u := range a.unknown {
		if u.id == id {
			return u
		}
	}
	return nil
}

// meet records that a process was met. If there are too many, another one must be met again.
func (a *acquaintances) meet(id kv.Process) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.met[id] {
		return
	}
	for o := range a.met {
		if len(a.met) < maxKnown {
			break
		}
		delete(a.met, o)
	}
	a.met[id] = true
	if u := a.find(id); u != nil {
		u.next = time.Time{} // it is to tell about itself again: see greet
	}
}

// forget ends the acquaintance of a process that is gone.
func (a *acquaintances) forget(id kv.Process) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.met, id)
}

// note notes the result of a greeting.
func (a *acquaintances) note(id kv.Process, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		a.greeted++
		return
	}
	a.failed++
	if u := a.find(id); u != nil {
		u.why = err.Error()
	}
}

// introduce takes what an acquaintance says about other processes. A process that it
// says is in becomes an acquaintance too.
func (a *acquaintances) introduce(list []wire.Standing) {
	for _, s := range list[:min(len(list), maxKnown/4)] {
		id := fromProcess(s.Process)
		if id.Node == a.self {
			continue
		}
		if s.In {
			a.meet(id)
		}
		a.driver.mu.Lock()
		a.driver.members.recordState(id, s.State, s.Weight, s.In)
		a.driver.mu.Unlock()
	}
}

// rumour reports whether gossip tells of an unknown process that is in.
func (a *acquaintances) rumour() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, u := range a.lately() {
		if u.in {
			return true
		}
	}
	return false
}

// list lists the unknown processes, except those whose name has a member. The driver's lock
// is held.
func (a *acquaintances) list(members roster) (list []Member) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, u := range a.lately() {
		if members[u.id.Node] != nil {
			continue
		}
		list = append(list, Member{
			ID: u.id, Address: u.serves, State: StateUnknown, Stranger: true,
			Why: "gossip alone tells of it: " + cmp.Or(u.why, "not greeted yet"),
		})
	}
	return list
}

// addTo adds the counts to gossip's.
func (a *acquaintances) addTo(s *cachesidecar.GossipStats) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s.Unknown, s.Forgotten, s.Greeted, s.GreetingsFailed = int64(len(a.unknown)), a.forgotten, a.greeted, a.failed
}
