package gossip

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// conflicts are the names that were seen at two addresses. This is the rule:
//
//   - A name belongs to the process that has it, for as long as members consider that
//     process alive. Members refuse another address under the name.
//   - Two addresses are normal for some seconds: a process was killed and has come back
//     elsewhere, and members do not consider its old address dead yet. Once they do, they
//     accept the new address.
//   - If that lasts for conflictAfter, there are two processes of one name.
//     Config.Conflict is told then, and again after as long.
//   - If the name is this node's, the name is contested: other nodes know another process
//     under it. This node then exchanges members with a living member every contestEvery,
//     so that the others accept it as soon as they consider the other process dead.
//
// There is at most one conflict for each member, and one for this node.
type conflicts struct {
	self      string      // this node's name
	contested atomic.Bool // other nodes know another process under this node's name

	mu   sync.Mutex
	seen map[string]*conflict // by name
}

// conflict is a name at two addresses.
type conflict struct {
	other       string // the address that is not accepted
	since, last time.Time
}

const (
	conflictAfter = 15 * time.Second // longer than the detection of a dead node
	conflictGap   = time.Minute      // after it, a new conflict
	contestEvery  = time.Second
)

// noteConflict notes that a name was seen at another address than the known one. It says whether
// that has lasted for conflictAfter since the beginning or since the last report.
func (c *conflicts) noteConflict(name, other string) (lasts bool) {
	if name == c.self {
		c.contested.Store(true)
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.seen[name]
	if at == nil || at.other != other || now.Sub(at.last) > conflictGap {
		at = &conflict{other: other, since: now}
		if c.seen == nil {
			c.seen = map[string]*conflict{}
		}
		c.seen[name] = at
	}
	at.last = now
	if lasts = now.Sub(at.since) >= conflictAfter; lasts {
		at.since = now
	}
	return lasts
}

// forget ends the conflict of a name: its process is accepted, or is gone.
func (c *conflicts) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.seen, name)
}

// settle notes that a member knows this node at its own address.
func (c *conflicts) settle() { c.contested.Store(false) }

// NotifyConflict reports a name at two addresses: see conflicts.
func (d delegate) NotifyConflict(known, other *memberlist.Node) {
	if d.g.conflicts.noteConflict(known.Name, other.Address()) {
		d.g.cfg.Conflict(known.Name, known.Address(), other.Address())
	}
}
