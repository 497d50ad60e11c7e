package cluster

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
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
//	            of them began, and even if one refused the other
//	introduced  a process that was met says that this one is in
//
// A process is a name and an epoch. A later process of the same name is unknown again,
// and the earlier one keeps its place until the later one is known.
type acquaintances struct {
	self kv.NodeID
	log  *slog.Logger
	pool *peer.Pool

	mu                         sync.Mutex // gossip calls known under locks of its own
	met                        map[kv.Process]bool
	unknown                    map[kv.NodeID]*unknown // see makeRoom
	forgotten, greeted, failed int64
	changed                    chan struct{} // has one when a process may be due
}

// unknown is a process that gossip tells of and that memberlist does not hear of.
type unknown struct {
	id              kv.Process
	gossips, serves string // its addresses
	in              bool
	told            time.Time     // last
	next            time.Time     // when it is due again
	pause           time.Duration // before that
	why             string        // the last greeting failed
	met             bool          // only a copy's: see due
}

// Bounds. A process may be invented by an attacker, and so may its addresses.
const (
	maxKnown   = 8192 // twice the members, two each
	maxUnknown = 256
	unknownFor = 30 * time.Second // since last told of; each exchange tells of all
	meetRate   = 20               // greetings a second
	meetBurst  = 128              // at once: a hundred hosts may start together
	meetsAtMax = 32               // in flight
	meetEvery  = 50 * time.Millisecond
	firstRetry = 100 * time.Millisecond // doubles, for a name
	lastRetry  = 4 * time.Second
	retellIn   = 20 * time.Millisecond
)

func newAcquaintances(self kv.NodeID, log *slog.Logger, pool *peer.Pool) *acquaintances {
	return &acquaintances{
		self: self, log: log, pool: pool,
		met: map[kv.Process]bool{}, unknown: map[kv.NodeID]*unknown{}, changed: make(chan struct{}, 1),
	}
}

// known reports whether a process that gossip tells of counts, and notes one that does not.
func (a *acquaintances) known(m gossip.Member) bool {
	id := kv.Process{Node: kv.NodeID(m.Node), Epoch: kv.Epoch(m.Meta.Epoch)}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.met[id] || failpoint.Out(failpoint.Acquaintance) {
		delete(a.unknown, id.Node)
		return true
	}
	u := a.unknown[id.Node]
	if u == nil {
		a.makeRoom()
		u = &unknown{}
		a.unknown[id.Node] = u
	}
	if u.id != id {
		wake(a.changed)
	}
	u.id, u.gossips, u.serves, u.in, u.told = id, m.Address, m.Meta.Address, m.Meta.In, time.Now()
	return false
}

// makeRoom makes room for another unknown process. Strangers can fill the table in no time:
// so a new process takes the place of another one at random, and real ones are told of again.
func (a *acquaintances) makeRoom() {
	for node := range a.unknown {
		if len(a.unknown) < maxUnknown {
			return
		}
		delete(a.unknown, node)
		a.forgotten++
	}
}

// lately returns the unknown processes that gossip has told of lately, in random order. The
// lock is held.
func (a *acquaintances) lately() map[kv.NodeID]*unknown {
	maps.DeleteFunc(a.unknown, func(_ kv.NodeID, u *unknown) bool { return time.Since(u.told) > unknownFor })
	return a.unknown
}

// due returns the processes that are to be greeted now, and those that are met and that
// gossip has not told of since; these come without a limit.
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
		next := *u
		next.met = a.met[u.id]
		list = append(list, next)
	}
	return list
}

// run makes processes that gossip tells of acquaintances and members, until ctx ends.
func (a *acquaintances) run(ctx context.Context, g *gossip.Gossip) {
	var group errgroup.Group
	group.SetLimit(meetsAtMax)
	limit := rate.NewLimiter(meetRate, meetBurst)
	t := time.NewTicker(meetEvery)
	defer t.Stop()
	for ctx.Err() == nil {
		for _, u := range a.due(limit) {
			group.Go(func() error { a.approach(ctx, g, &u); return nil })
		}
		select {
		case <-ctx.Done():
		case <-a.changed:
			kv.Sleep(ctx, time.Millisecond) // many may arrive together
		case <-t.C:
		}
	}
	_ = group.Wait()
}

// approach greets a process; one that refuses counts as met. Gossip has kept a process that
// is met from memberlist before: it is asked to tell about itself again, unless others have
// told of it meanwhile.
func (a *acquaintances) approach(ctx context.Context, g *gossip.Gossip, u *unknown) {
	var err error
	if u.met {
		kv.Sleep(ctx, retellIn)
		if ctx.Err() == nil && a.untold(u.id) {
			err = g.Exchange(u.gossips)
		}
	} else {
		err = a.pool.Meet(ctx, u.id, u.serves)
		if errors.Is(err, peer.ErrRefused) {
			a.meet(u.id)
		}
		a.noteGreeting(u.id, err)
	}
	if err != nil {
		a.log.Debug("a process that gossip tells of was not met",
			"node", u.id.Node, "address", u.serves, "error", err)
	}
}

// untold reports whether gossip has not told of a process since it was met.
func (a *acquaintances) untold(id kv.Process) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.find(id) != nil
}

// find returns an unknown process, or nil. The lock is held.
func (a *acquaintances) find(id kv.Process) *unknown {
	if u := a.unknown[id.Node]; u != nil && u.id == id {
		return u
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
		u.next, u.pause = time.Time{}, 0
		wake(a.changed)
	}
}

// forget ends the acquaintance of a process that is gone.
func (a *acquaintances) forget(id kv.Process) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.met, id)
}

// noteGreeting notes the result of a greeting.
func (a *acquaintances) noteGreeting(id kv.Process, err error) {
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
		if s.In && s.Process.Node != a.self {
			a.meet(s.Process)
		}
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

// list lists the unknown processes, except those whose name has a member.
func (a *acquaintances) list(members members) (list []Member) {
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
