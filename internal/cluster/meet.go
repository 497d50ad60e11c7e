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
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// Limits of greetings of unknown processes. An attacker who invents such processes also
// chooses their addresses.
const (
	meetRate   = 20  // a second
	meetBurst  = 128 // at once: a hundred hosts may start together
	meetsAtMax = 32  // in flight
	meetEvery  = 50 * time.Millisecond
	firstRetry = 100 * time.Millisecond // doubles, for a name and for an address
	lastRetry  = 4 * time.Second
	maxTried   = 1024 // names and addresses that have not answered
)

// Met counts greetings of processes that were unknown.
type Met struct{ Greeted, Failed int64 }

// meeting decides when unknown processes are greeted. It is safe for concurrent use.
type meeting struct {
	mu    sync.Mutex
	tried map[string]*tried // by name, and by address
	met   Met
}

// tried is a name, or an address, that has not answered.
type tried struct {
	next  time.Time
	pause time.Duration
	why   string
}

func (m *meeting) stats() Met {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.met
}

// keysOf returns the keys of a process in tried.
func keysOf(u *gossip.Unknown) [2]string {
	return [2]string{"name " + u.Node, "address " + u.Meta.Address}
}

// begin reports whether a process should be greeted now.
func (m *meeting) begin(u *gossip.Unknown, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range keysOf(u) {
		if t := m.tried[k]; t != nil && now.Before(t.next) {
			return false
		}
	}
	if m.tried == nil {
		m.tried = map[string]*tried{}
	}
	for _, k := range keysOf(u) {
		t := m.tried[k]
		if t == nil {
			m.room(now)
			t = &tried{}
			m.tried[k] = t
		}
		t.pause = min(max(2*t.pause, firstRetry), lastRetry)
		// The time of the next try, unless this greeting succeeds before.
		t.next = now.Add(t.pause/2 + rand.N(t.pause))
	}
	return true
}

// room makes room for an entry: it drops old entries first, then any.
func (m *meeting) room(now time.Time) {
	if len(m.tried) < maxTried {
		return
	}
	for k, t := range m.tried {
		if now.Sub(t.next) > 2*lastRetry {
			delete(m.tried, k)
		}
	}
	for k := range m.tried {
		if len(m.tried) < maxTried {
			return
		}
		delete(m.tried, k)
	}
}

// ended notes the result of a greeting.
func (m *meeting) ended(u *gossip.Unknown, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.met.Failed++
	} else {
		m.met.Greeted++
	}
	for _, k := range keysOf(u) {
		if t := m.tried[k]; t != nil && err != nil {
			t.why = err.Error()
		} else {
			delete(m.tried, k)
		}
	}
}

// why returns the error of the last greeting, or "".
func (m *meeting) why(u *gossip.Unknown) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range keysOf(u) {
		if t := m.tried[k]; t != nil && t.why != "" {
			return t.why
		}
	}
	return ""
}

// meet greets the processes that only gossip knows of, until ctx ends.
func (n *Node) meet(ctx context.Context) {
	limit, places := rate.NewLimiter(meetRate, meetBurst), make(chan struct{}, meetsAtMax)
	t := time.NewTicker(meetEvery)
	defer t.Stop()
	for {
		for _, u := range n.toMeet() {
			id := process(&u)
			if n.known.has(id) {
				n.gossip.Met(u.Node) // the process was met before gossip told of it
				continue
			}
			if limit.Tokens() < 1 {
				break
			}
			if !n.meeting.begin(&u, time.Now()) {
				continue
			}
			limit.Allow()
			select {
			case places <- struct{}{}:
			case <-ctx.Done():
				return
			}
			n.tasks.Go(func() { // ends with its dial
				defer func() { <-places }()
				n.greet(ctx, &u)
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-n.gossip.UnknownChanged():
			kv.Sleep(ctx, time.Millisecond) // many may arrive together
		case <-t.C:
		}
	}
}

// toMeet lists the processes to greet: those at join addresses first, the others in
// random order. It leaves out other names at the address of a live member. No such
// process can be there, and the greeting would only put load on that member.
func (n *Node) toMeet() []gossip.Unknown {
	list := n.gossip.Unknown()
	joined := 0
	for joined < len(list) && list[joined].Joined {
		joined++
	}
	rest := list[joined:]
	rand.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	n.mu.Lock()
	defer n.mu.Unlock()
	taken := map[string]kv.NodeID{n.address: n.cfg.Self.Node}
	for name, m := range n.members {
		if m.alive {
			taken[m.address] = name
		}
	}
	kept := list[:0]
	for _, u := range list {
		if by, ok := taken[u.Meta.Address]; !ok || by == kv.NodeID(u.Node) {
			kept = append(kept, u)
		}
	}
	return kept
}

// greet greets a process. A process that refuses counts as met.
func (n *Node) greet(ctx context.Context, u *gossip.Unknown) {
	id := process(u)
	err := n.pool.Meet(ctx, id, u.Meta.Address)
	if errors.Is(err, peer.ErrRefused) {
		n.met(id)
	}
	n.meeting.ended(u, err)
	if err != nil {
		n.cfg.Log.Debug("a process that gossip tells of was not met", "node", u.Node, "address", u.Meta.Address, "error", err)
	}
}

// rumours tells the machine if gossip has heard of a process that is in. n.mu is held.
func (n *Node) rumours(m *ownership.Machine, now time.Duration) {
	if m.In() {
		return
	}
	for _, u := range n.gossip.Unknown() {
		if u.Meta.In {
			m.Rumour(now)
			return
		}
	}
}

// unknown lists the processes that only gossip knows of. n.mu is held.
func (n *Node) unknown() (list []Member) {
	if n.gossip == nil {
		return nil
	}
	for _, u := range n.gossip.Unknown() {
		if n.members[kv.NodeID(u.Node)] != nil { // known by an earlier process
			continue
		}
		why := n.meeting.why(&u)
		if why == "" {
			why = "not greeted yet"
		}
		list = append(list, Member{
			ID: process(&u), Address: u.Meta.Address, State: StateUnknown, Stranger: true,
			Why: fmt.Sprintf("gossip alone tells of it: %s", why),
		})
	}
	return list
}

// idle handles a connection that is for the greeting only.
type idle struct{}

func (idle) Batch()                                  {}
func (idle) Served()                                 {}
func (idle) Gone()                                   {}
func (idle) Oversized(*rpc.Conn, []byte, int, error) {}
func (idle) Close(error)                             {}
func (idle) Serve(c *rpc.Conn, frames [][]byte) error {
	return errors.New("a connection to meet has no requests")
}
