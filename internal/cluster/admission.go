package cluster

import (
	"log/slog"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// admission decides whether another process's messages count, and remembers why they do
// not. It checks the clocks in each message, and takes the results of greetings. It takes
// the driver's lock, and must not be called under it.
type admission struct {
	identity      *peer.Identity
	log           *slog.Logger
	driver        *driver
	acquaintances *acquaintances
	report        *reporter
	counts        *counts
}

// greeted takes the result of this node's greeting of another node. refused takes any
// refusal, of this node's greetings and of other nodes'.
func (ad *admission) greeted(node kv.NodeID, answered kv.Process, err error) {
	switch {
	case err == nil:
		ad.acquaintances.meet(answered)
		ad.driver.withMember(answered, func(m *member) { m.reached = true }) // at its known address
		ad.setTrouble(node, "")
	case answered == (kv.Process{}) && ad.troubled(node):
		// The node's reason does not replace the one that this node has found.
		ad.counts.refused.Add(1)
	default:
		ad.refused(node, err)
	}
}

func (ad *admission) refused(node kv.NodeID, err error) {
	if ad.driver.causedByStandstill(err) {
		return
	}
	ad.counts.refused.Add(1)
	if ad.setTrouble(node, err.Error()) && ad.report.due("refused", node) {
		ad.log.Warn("a host is refused: this one does not talk to it", "node", node, "reason", err)
	}
}

func (ad *admission) troubled(node kv.NodeID) (troubled bool) {
	ad.driver.withState(func(s *state) {
		m := s.members[node]
		troubled = m != nil && m.trouble != ""
	})
	return troubled
}

// setTrouble records why a node is not talked to, and reports whether that is new.
func (ad *admission) setTrouble(node kv.NodeID, why string) (changed bool) {
	ad.driver.withState(func(s *state) {
		if m := s.members[node]; m != nil {
			changed, m.trouble = m.trouble != why, why
		}
	})
	return changed
}

// skewed reports whether a process's wall clock, read after since, is too far off. Then
// nothing in its message counts.
func (ad *admission) skewed(id kv.Process, wall, since int64) bool {
	err := ad.identity.Skew(string(id.Node), wall, since, ad.identity.Clock.Read().Wall)
	if err != nil {
		ad.refused(id.Node, err)
	}
	ad.setSkewed(id, err != nil)
	return err != nil
}

// ahead reports whether a version in a process's message is too far ahead. Then nothing
// in the message counts, and the process's clock counts as off until its next poll is
// checked.
func (ad *admission) ahead(id kv.Process, newest uint64) bool {
	err := ad.identity.Ahead(id.Node, newest)
	if err == nil {
		return false
	}
	ad.refused(id.Node, err)
	ad.setSkewed(id, true)
	return true
}

func (ad *admission) setSkewed(id kv.Process, skewed bool) {
	ad.driver.withMember(id, func(m *member) { m.skewed = skewed })
}

// admit returns why a request does not count, or nil. newest is the newest version in it.
// If it counts, its clock is merged into this process's.
func (ad *admission) admit(from kv.Process, clock, newest uint64) *wire.Error {
	if ad.ahead(from, newest) {
		return tooFarAhead
	}
	ad.identity.Versions.Observe(kv.Version(clock))
	return nil
}

// checkWall returns why a request does not count, or nil. wall is the sender's wall
// clock, in milliseconds, within the last B/2.
func (ad *admission) checkWall(from kv.Process, wall int64) *wire.Error {
	if ad.skewed(from, wall, ad.identity.Clock.Read().Wall-ad.driver.cfg.Bound.Milliseconds()/2) {
		return wire.Errorf(wire.Unauthorized, "this node's clock differs by more than %v", ad.identity.MaxSkew)
	}
	return nil
}

// tooFarAhead is the answer to a message with an impossible version; see peer.Identity.
var tooFarAhead = wire.Errorf(wire.Unauthorized, "a version in the message is further ahead than max_clock_skew "+
	"allows: set the wall clock of its host right and start it anew")
