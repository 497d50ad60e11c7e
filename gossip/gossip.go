package gossip

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// Gossip is this node's part in the gossip. It is safe for concurrent use.
type Gossip struct {
	cfg       Config
	list      *memberlist.Memberlist
	ring      *memberlist.Keyring // nil without keys
	filter    *filter
	conflicts conflicts
	payloads  *payloads

	changed     chan struct{} // has one when members may have changed
	metaChanged chan struct{}
	restarted   chan string // an address of another process than the known one

	mu      sync.Mutex
	address string
	meta    []byte
	members map[string]*Member // never this node
	others  []string           // see Others; replaced, never changed
	found   [][]string         // the last addresses of each join address

	living  atomic.Int64 // other living members; written under mu
	garbage atomic.Int64 // unreadable or refused packets, streams, metas and payloads

	keys     sync.Mutex // for changes of the ring, and for keysTold
	keysTold time.Time

	ending sync.Mutex // held while the node leaves or closes
	closed bool
}

// Address returns the address at which other nodes find this node.
func (g *Gossip) Address() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.address
}

// Changed returns a channel that has one element when members may have changed.
func (g *Gossip) Changed() <-chan struct{} { return g.changed }

// SetMeta changes what this node tells about itself. Other nodes learn it soon.
func (g *Gossip) SetMeta(m Meta) error {
	b, err := m.encode()
	if err != nil {
		return err
	}
	g.mu.Lock()
	g.meta = b
	g.mu.Unlock()
	wake(g.metaChanged)
	return nil
}

func wake(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Broadcast sends a payload to all members, gradually, if there is room. It returns
// false if there is no room or the payload is too long. A payload equal to an
// earlier one may be taken for that one.
func (g *Gossip) Broadcast(b []byte) bool {
	others := int(g.living.Load())
	if others == 0 && len(b) <= maxPayload {
		return true // there is no other member
	}
	g.payloads.isNew(b) // this node gets it back from others
	return g.payloads.add(maxHops, b, 1+others)
}
