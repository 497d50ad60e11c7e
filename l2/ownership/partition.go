package ownership

import (
	"math"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// partition is what the node knows and does about one partition.
type partition struct {
	owned    bool
	ballot   *kv.Ballot    // of the ownership
	until    time.Duration // end of its authority
	retired  time.Duration // since when it no longer serves; zero: it serves
	higher   *kv.Ballot    // the higher ballot that retired it, once heard of
	promised *kv.Ballot    // the highest answered, this node's own included
	saidAt   time.Duration // when promised was last answered
	changed  uint64        // ballotsAt of the last change of promised
	released *kv.Ballot    // the ballot that ended the last ownership, which had entries
	claim    *claim        // the claim under way for it
	retryAt  time.Duration // no new claim before
	before   kv.NodeID     // the assigned owner before the present one
}

// seeks returns the ballot under which authority is sought; nil: none.
func (p *partition) seeks() *kv.Ballot {
	switch {
	case p.owned:
		return p.ballot
	case p.claim != nil && p.claim.polling:
		return p.claim.ballot
	}
	return nil
}

// claim is an attempt to take some partitions under one ballot. All of them had the
// same assigned owner before. That owner is asked last: it gives up what it grants,
// and its entries are for this ballot alone, so no other member may refuse the ballot
// afterwards.
type claim struct {
	ballot   *kv.Ballot
	set      kv.PartitionSet
	last     kv.NodeID
	lastSent bool // the last member has been asked, or there is none
	answers  map[kv.NodeID]*answered
	polling  bool // waits for a majority of voters
	began    time.Duration
	sentAt   time.Duration
	lastAt   time.Duration // when the last member was asked
	refused  time.Duration // since when a member refuses part of it; zero: none does
}

// answered is the latest answer of a member.
type answered struct {
	Answer
	from  kv.Process
	since time.Duration // since when its voter grants that much
}

// noteAnswer keeps an answer.
func (c *claim) noteAnswer(from kv.Process, a Answer, now time.Duration) {
	if old := c.answer(from); old != nil && old.Voter && old.Granted.Contains(a.Granted) {
		now = old.since
	}
	c.answers[from.Node] = &answered{a, from, now}
}

// answer returns the answer of a process, or nil.
func (c *claim) answer(id kv.Process) *answered {
	if a := c.answers[id.Node]; a != nil && a.from == id {
		return a
	}
	return nil
}

// never is later than any time.
const never = time.Duration(math.MaxInt64)

// Margin returns how long to wait for a time that another clock measures: clock rates
// differ by less than 1 %.
func Margin(d time.Duration) time.Duration { return d*102/100 + 10*time.Millisecond }
