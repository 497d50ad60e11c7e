package cluster

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// isolation says whether this node is isolated: other nodes should be there, and none of
// them has answered for the detection time. Under policy available such a node goes on by
// itself, so its values may be older than the bound. The driver's lock guards it.
//
// A node should be there if it is known, has not left in order, and was not forgotten. Until
// another node has answered for the first time, those at the join addresses should be there.
type isolation struct {
	answered bool          // another node has answered since the start
	alone    bool          // the join addresses name this node alone
	namedAt  time.Duration // since when they name others; zero: since the start
	why      string        // names the hosts that do not answer; "" if this node is not isolated
}

// judgeIsolation looks whether this node is isolated. The driver's lock is held.
func (ms *membership) judgeIsolation(m *ownership.Machine, now time.Duration) {
	if !m.Joined() {
		return // it still looks for others, also after a pause
	}
	var silent []string
	answers := false
	for name, o := range ms.driver.members {
		silence, dead := m.Silence(now, name)
		switch {
		case o.left == o.id:
		case !dead && silence < ms.cfg.detection():
			s, _ := m.Standing(name)
			answers = answers || s.State != 0 // else it has told nothing yet
		case !ms.driver.stranger(o):
			silent = append(silent, string(name))
		}
	}
	i := &ms.isolation
	i.answered = i.answered || answers
	others := ms.driver.running.gossip.Others()
	if i.alone && len(others) > 0 {
		i.namedAt = now
	}
	i.alone = len(others) == 0
	was := i.why
	switch i.why = ""; {
	case answers:
	case len(silent) > 0:
		slices.Sort(silent)
		i.why = "no other host answers (" + atMost(silent) + ")"
	case !i.answered && !i.alone && now-i.namedAt >= ms.cfg.detection():
		i.why = "no host answers at the join addresses (" + atMost(others) + ")"
	}
	ms.report.isolated(was, i.why, answers)
}

// atMost joins the first of some names, and counts the rest.
func atMost(names []string) string {
	const most = 5
	if len(names) > most {
		names = append(slices.Clone(names[:most]), fmt.Sprintf("and %d more", len(names)-most))
	}
	return strings.Join(names, ", ")
}
