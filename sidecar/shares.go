package sidecar

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// What all connections of a host share and there is only so much of is given out
// as places, so that a newcomer always finds some: an owner, a user of this host
// or another host, may have three quarters of what the others leave (of connections
// seven eighths), and one connection a part of what its owner has left. So the more
// is taken the less one gets, and the last places are for those who have none. Memory
// is shared by another rule, since it can be taken back: see rpc.Budget.

// resource is one kind of place.
type resource uint8

const (
	leaseTokens resource = iota
	watchPlaces
	waitPlaces
	nameSlots
	connections
	flushedNames
	resources
)

// A connection's part of what is left to its owner: one over this. Names are an
// app's own more than the others, and connections have no part.
var parts = [resources]int64{leaseTokens: 16, watchPlaces: 16, waitPlaces: 4, nameSlots: 1, flushedNames: 1}

var resourceNames = [resources]string{"lease_tokens", "watches", "waiting", "namespaces", "connections", "flushes"}

var resourceTexts = [resources]string{
	leaseTokens: "lease tokens: FILL or abandon some, or load the key without filling it",
	watchPlaces: "places to watch from: watch through fewer connections, or try again",
	waitPlaces:  "places of requests that wait for other hosts, loads or fills: try again",
	nameSlots:   "names that max_namespaces leaves to those that are not configured: use fewer names, or configure them",
	flushedNames: "names of which a flush of the cluster is remembered: flush one of those that were flushed before, " +
		"or let an administrator flush all namespaces, which forgets them",
	connections: "connections of max_connections: close some, or raise it",
}

// shares are the places of a host, and who has them.
type shares struct {
	total   [resources]int64
	used    [resources]atomic.Int64
	refused [resources]atomic.Int64

	mu     sync.Mutex
	owners map[string]*shareOwner
}

// shareOwner is a user of this host, or another host.
type shareOwner struct {
	name    string
	members atomic.Int64 // changes under the shares' lock
	has     [resources]atomic.Int64
}

// member is one connection. A nil one takes without bounds: it is this process.
type member struct {
	shares *shares
	owner  *shareOwner
	has    [resources]atomic.Int64

	searched time.Time // when one of its empty names was looked for in vain; under the namespaces' lock
}

func newShares(cfg *Config) *shares {
	s := &shares{owners: map[string]*shareOwner{}}
	s.total = [resources]int64{
		leaseTokens: maxLeases, watchPlaces: maxWatches, waitPlaces: maxSlow,
		nameSlots: int64(cfg.MaxNamespaces - len(cfg.Namespaces)), connections: int64(cfg.MaxConnections), flushedNames: maxFlushed,
	}
	return s
}

// join makes a member. What it has it keeps until it gives it, also after leave.
func (s *shares) join(owner string) *member {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.owners[owner]
	if o == nil {
		o = &shareOwner{name: owner}
		s.owners[owner] = o
	}
	o.members.Add(1)
	return &member{shares: s, owner: o}
}

// leave ends a member.
func (m *member) leave() {
	if m == nil {
		return
	}
	m.shares.mu.Lock()
	m.owner.members.Add(-1)
	m.shares.mu.Unlock()
	m.shares.forget(m.owner)
}

// forget ends an owner that has no members and no places any more: names and tokens
// outlive those who have brought them.
func (s *shares) forget(o *shareOwner) {
	if o.members.Load() > 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.members.Load() > 0 {
		return
	}
	for r := range resources {
		if o.has[r].Load() != 0 {
			return
		}
	}
	if s.owners[o.name] == o {
		delete(s.owners, o.name)
	}
}

// add counts a place more, or less.
func (m *member) add(r resource, n int64) (used, of, here int64) {
	if m == nil {
		return
	}
	return m.shares.used[r].Add(n), m.owner.has[r].Add(n), m.has[r].Add(n)
}

// give gives a place back.
func (m *member) give(r resource) {
	if m == nil {
		return
	}
	m.add(r, -1)
	m.shares.forget(m.owner)
}

// take takes a place, or says who has them.
func (m *member) take(r resource) *wire.Error {
	if m == nil {
		return nil
	}
	used, of, here := m.add(r, 1)
	s := m.shares
	total := s.total[r]
	may := total - (used - of) // what others leave
	if may -= may / 4; r == connections {
		may = total - (used - of) - (total-(used-of))/8
	}
	if left := may - (of - 1); used <= total && left > 0 && (here-1)*parts[r] < left {
		return nil
	}
	m.give(r)
	s.refused[r].Add(1)
	return wire.Errorf(wire.Busy, "%s holds %d and this connection %d of the %d %s", m.owner.name, of-1, here-1, total, resourceTexts[r])
}

// Take takes a lease token; one that is handed over from another is there already.
func (m *member) Take(handed bool) error {
	if handed {
		m.add(leaseTokens, 1)
		return nil
	}
	if err := m.take(leaseTokens); err != nil {
		return err
	}
	return nil
}

// Give gives it back.
func (m *member) Give() { m.give(leaseTokens) }

type memberKey struct{}

// withMember notes who asks.
func withMember(ctx context.Context, m *member) context.Context {
	if m == nil {
		return ctx
	}
	return context.WithValue(ctx, memberKey{}, m)
}

func memberOf(ctx context.Context) *member {
	m, _ := ctx.Value(memberKey{}).(*member)
	return m
}

// stats tells what is taken, and who has most of it.
func (s *shares) stats() []wire.ShareStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]wire.ShareStats, resources)
	for r := range resources {
		t := &list[r]
		*t = wire.ShareStats{Name: resourceNames[r], Used: s.used[r].Load(), Limit: s.total[r], Refused: s.refused[r].Load()}
		for name, o := range s.owners {
			if n := o.has[r].Load(); n > t.MostBy {
				t.Most, t.MostBy = name, n
			}
		}
	}
	return list
}

func userOwner(uid int) string { return fmt.Sprint("uid ", uid) }
