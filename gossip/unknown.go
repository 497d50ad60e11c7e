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

// Bounds of what is remembered of processes that nobody has met.
const (
	maxUnknown = 256
	unknownFor = 30 * time.Second // since it was last told of; all are, with each exchange
	retellIn   = 20 * time.Millisecond
	maxRetold  = 16 // exchanges at once
)

// unknown is who is told of and was not met yet. Strangers can fill it in no time: so
// a new one takes the place of any other at random, and those that are there are
// told of again. Those at join addresses stay, one at each. Under the lock of members.
type unknown struct {
	list      map[string]*Unknown
	joins     map[string]bool // join addresses, resolved
	met       []Unknown       // who are to tell of themselves again
	forgotten int64
	news      chan struct{} // has one when the list may have changed
	more      chan struct{} // and when met may have
}

// Unknown is a process of which gossip alone has told.
type Unknown struct {
	Node    string
	Address string // of its gossip
	Meta    Meta
	Joined  bool // at an address to join
	last    time.Time
}

func newUnknown() unknown {
	return unknown{list: map[string]*Unknown{}, news: make(chan struct{}, 1), more: make(chan struct{}, 1)}
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
	case old == nil && !u.room(next.Joined):
		u.forgotten++
		return
	case old != nil && old.Joined && !next.Joined:
		return // the name is taken, by somebody where a member ought to be
	}
	if old == nil || old.Meta != next.Meta {
		wake(u.news)
	}
	u.list[n.Name] = &next
}

// room makes room for another one, if it can.
func (u *unknown) room(joined bool) bool {
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

// UnknownChanged has one element when Unknown may have changed.
func (g *Gossip) UnknownChanged() <-chan struct{} { return g.unknown.news }

// Met says that a process is known from now on: it is asked to tell of itself again,
// where nobody else has told of it meanwhile.
func (g *Gossip) Met(node string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if o := g.unknown.list[node]; o != nil && len(g.unknown.met) < maxUnknown {
		g.unknown.met = append(g.unknown.met, *o)
		g.unknown.drop(node)
		wake(g.unknown.more)
	}
}

// retell exchanges members with those that were met, until ctx ends.
func (g *Gossip) retell(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.unknown.more:
		}
		for list := g.toRetell(ctx); len(list) > 0; list = g.toRetell(ctx) {
			if _, err := g.join(list); err != nil {
				g.cfg.Log.Debug("gossip: some who were met do not answer", "error", err)
			}
		}
	}
}

// toRetell lists some of those who were met and of whom nobody has told yet.
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

// UnknownOf is the process of a name that is unknown, if one was told of.
func (g *Gossip) UnknownOf(node string) (Unknown, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	o := g.unknown.list[node]
	if o == nil {
		return Unknown{}, false
	}
	return *o, true
}
