package gossip

import (
	"cmp"
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Bounds of what is remembered of processes that have not been met.
const (
	maxUnknown = 256
	unknownFor = 30 * time.Second // since last told of; each exchange tells of all
	retellIn   = 20 * time.Millisecond
	maxRetold  = 16 // exchanges at once
)

// unknown has the processes that gossip tells of and that have not been met yet.
// Strangers can fill it in no time. So a new process takes the place of any other at
// random, and real processes are told of again. Processes at join addresses stay, one
// at each. The lock of members guards it.
type unknown struct {
	list      map[string]*Unknown
	joins     map[string]bool // join addresses, resolved
	met       []Unknown       // processes that are to tell about themselves again
	forgotten int64
	changed   chan struct{} // has one when the list may have changed
	toMeet    chan struct{} // has one when met may have changed
}

// Unknown is a process of which only gossip has told.
type Unknown struct {
	Node    string
	Address string // of its gossip
	Meta    Meta
	Joined  bool // at a join address
	last    time.Time
}

func newUnknown() unknown {
	return unknown{list: map[string]*Unknown{}, changed: make(chan struct{}, 1), toMeet: make(chan struct{}, 1)}
}

func (u *unknown) drop(node string) { delete(u.list, node) }

func (u *unknown) setJoins(mu *sync.Mutex, addresses []string) {
	joins := make(map[string]bool, len(addresses))
	for _, a := range addresses {
		joins[a] = true
	}
	mu.Lock()
	defer mu.Unlock()
	u.joins = joins
}

// heardOf notes a process that is unknown.
func (g *Gossip) heardOf(n *memberlist.Node, m Meta) {
	g.mu.Lock()
	defer g.mu.Unlock()
	u := &g.unknown
	next := Unknown{Node: n.Name, Address: n.Address(), Meta: m, last: time.Now()}
	next.Joined = u.joins[next.Address]
	old := u.list[n.Name]
	if next.Joined && old == nil {
		maps.DeleteFunc(u.list, func(_ string, o *Unknown) bool { return o.Address == next.Address })
	}
	switch {
	case old == nil && !u.makeRoom(next.Joined):
		u.forgotten++
		return
	case old != nil && old.Joined && !next.Joined:
		return // the name belongs to a process at a join address
	}
	if old == nil || old.Meta != next.Meta {
		wake(u.changed)
	}
	u.list[n.Name] = &next
}

// makeRoom makes room for another process, if it can.
func (u *unknown) makeRoom(joined bool) bool {
	if len(u.list) < maxUnknown {
		return true
	}
	names := make([]string, 0, len(u.list))
	for name, o := range u.list {
		if !o.Joined || joined {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return false
	}
	delete(u.list, names[rand.IntN(len(names))])
	u.forgotten++
	return true
}

// Unknown lists the processes that were told of lately and are not known, those at
// join addresses first.
func (g *Gossip) Unknown() []Unknown {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := make([]Unknown, 0, len(g.unknown.list))
	for name, o := range g.unknown.list {
		if time.Since(o.last) > unknownFor {
			g.unknown.drop(name)
			continue
		}
		list = append(list, *o)
	}
	slices.SortFunc(list, func(a, b Unknown) int {
		if a.Joined != b.Joined {
			if a.Joined {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Node, b.Node)
	})
	return list
}

// UnknownChanged returns a channel that has one element when Unknown may have
// changed.
func (g *Gossip) UnknownChanged() <-chan struct{} { return g.unknown.changed }

// Met says that a process is known from now on. The process is asked to tell about
// itself again, unless other nodes have told of it meanwhile.
func (g *Gossip) Met(node string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if o := g.unknown.list[node]; o != nil && len(g.unknown.met) < maxUnknown {
		g.unknown.met = append(g.unknown.met, *o)
		g.unknown.drop(node)
		wake(g.unknown.toMeet)
	}
}

// retell exchanges members with the processes that were met, until ctx ends.
func (g *Gossip) retell(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.unknown.toMeet:
		}
		for list := g.toRetell(ctx); len(list) > 0; list = g.toRetell(ctx) {
			if _, err := g.join(list); err != nil {
				g.cfg.Log.Debug("gossip: some processes that were met do not answer", "error", err)
			}
		}
	}
}

// toRetell lists some of the processes that were met and not told of since.
func (g *Gossip) toRetell(ctx context.Context) (list []string) {
	t := time.NewTimer(retellIn)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-t.C:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.unknown.met) > 0 && len(list) < maxRetold {
		o := g.unknown.met[0]
		g.unknown.met = g.unknown.met[1:]
		if m := g.members[o.Node]; m == nil || m.State != Alive || m.Meta.Epoch != o.Meta.Epoch {
			list = append(list, o.Address)
		}
	}
	return list
}
