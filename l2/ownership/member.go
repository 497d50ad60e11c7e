package ownership

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// member is another node, in the process that was last heard of.
type member struct {
	id     kv.Process
	weight uint32
	in     bool
	joined bool
	state  uint64 // counts their changes

	cameAt  time.Duration // when this process came, or came back
	heardAt time.Duration // last sign of life, on any path
	missing bool          // gossip says that it is dead
	dead    bool          // considered dead

	leasedAt  time.Duration // send time of the poll that gave our lease on it; zero: none
	polledAt  time.Duration // when a poll of it was last answered
	askedAt   time.Duration // when the last poll was sent that it has answered
	saidState uint64        // this node's state, in the polls that it has answered
	refused   bool          // one of the two refuses the other
	wasIn     bool          // it has been in, as far as this node knows
	strange   time.Duration // since when processes of its name are refused, none of which was in; zero: none
	leasesUs  bool          // it says that it has a lease on this node
	inRing    bool

	named      bool   // nothing has come from it: another member has told of it
	goneOut    bool   // gossip alone says that it is out: see GoneOut
	othersTold uint64 // its count of this node's changes of standings
	othersHave uint64 // this node's count of its changes of them

	ballotsTold uint64 // its count of this node's changes of ballots
	ballotsHave uint64 // this node's count of its changes of them

	unpolled   []kv.NodeID   // the nodes that it cannot poll
	unpolledAt time.Duration // when it has told that
}

// live says whether the member is not considered dead.
func (o *member) live() bool { return !o.dead }
