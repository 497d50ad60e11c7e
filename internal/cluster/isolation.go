package cluster

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// isolation says whether this node is isolated: other nodes should be there, and none of
// them has answered for the detection time. Under policy available such a node goes on by
// itself, so its values may be older than the bound.
//
// A node should be there if it is known, has not left in order, and was not forgotten. Until
// another node has answered for the first time, those at the join addresses should be there.
type isolation struct {
	answered bool          // another node has answered since the start
	alone    bool          // the join addresses name this node alone
	namedAt  time.Duration // since when they name others; zero: since the start
	why      string        // names the hosts that do not answer; "" if this node is not isolated
}

// judge judges it from the nodes that do not answer, whether others answer, and which nodes those at the
// join addresses are.
func (i *isolation) judge(silent []string, answers bool, others []string, now, detection time.Duration) {
	i.answered = i.answered || answers
	if i.alone && len(others) > 0 {
		i.namedAt = now
	}
	i.alone = len(others) == 0
	switch i.why = ""; {
	case answers:
	case len(silent) > 0:
		slices.Sort(silent)
		i.why = "no other host answers (" + atMost(silent) + ")"
	case !i.answered && !i.alone && now-i.namedAt >= detection:
		i.why = "no host answers at the join addresses (" + atMost(others) + ")"
	}
}

// atMost joins the first of some names, and counts the rest.
func atMost(names []string) string {
	const most = 5
	if len(names) > most {
		names = append(slices.Clone(names[:most]), fmt.Sprintf("and %d more", len(names)-most))
	}
	return strings.Join(names, ", ")
}
