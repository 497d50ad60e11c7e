package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// What the log says about hosts: one line for each event. The line names the cause, not
// its consequences.

// sayRing logs a new ring. It returns the dead processes that were not in the old ring.
// n.mu is held.
func (n *Node) sayRing(v, old *View, died []ownership.Died) (rest []ownership.Died) {
	gone := map[kv.Process]bool{n.cfg.Self: true} // processes that another line is about
	var owners []ownership.Died
	for _, d := range died {
		if old.has(d.ID) {
			owners = append(owners, d)
		} else {
			rest = append(rest, d)
		}
		gone[d.ID] = true
	}
	n.sayDied(owners, v, old)
	for _, m := range n.members {
		gone[m.left] = true
	}
	names := func(list []kv.Process) (names []string) {
		for _, id := range list {
			if !gone[id] {
				names = append(names, string(id.Node))
			}
		}
		return names
	}
	came, went := names(old.lacks(v)), names(v.lacks(old))
	if len(came)+len(went) > 0 {
		n.cfg.Log.Info("the ring has changed", "came", strings.Join(came, ", "), "went", strings.Join(went, ", "), "hosts", len(v.owners))
	}
	return rest
}

// sayDied logs dead hosts: what each owned by the old ring, and which hosts own that by
// the new ring. n.mu is held.
func (n *Node) sayDied(died []ownership.Died, v, old *View) {
	slices.SortFunc(died, func(a, b ownership.Died) int { return a.ID.Compare(b.ID) })
	for _, d := range died {
		if m := n.members[d.ID.Node]; m != nil && m.id == d.ID && m.stranger() {
			continue // sweep logs it
		}
		why := "nothing is heard of it"
		if d.Again {
			why = "another process has its name: it was started again, or two hosts have one name"
		}
		owned, heirs := old.left(d.ID.Node, v)
		n.cfg.Log.Warn("a host counts as dead", "node", d.ID.Node, "reason", why, "silent_for", d.Silence.Round(time.Millisecond),
			"owned_partitions", owned, "share", fmt.Sprintf("%.1f %%", 100*float64(owned)/kv.Partitions), "taken_over_by", heirs)
	}
}

// has reports whether a process is in the ring.
func (v *View) has(id kv.Process) bool {
	return slices.ContainsFunc(v.owners, func(o *Owner) bool { return o.Process == id })
}

// left returns how many partitions a node owns, and which nodes own them by a later
// ring.
func (v *View) left(node kv.NodeID, later *View) (owned int, heirs string) {
	counts := map[kv.NodeID]int{}
	for p := range uint16(kv.Partitions) {
		if v.Table.Owner(p) == node {
			owned++
			counts[later.Table.Owner(p)]++
		}
	}
	var list []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		list = append(list, fmt.Sprintf("%s (%d)", cmp.Or(name, "nobody"), counts[name]))
	}
	return owned, strings.Join(list, ", ")
}

// sayState logs whether this node is in, if that has changed. Pauses and leaves have
// lines of their own. n.mu is held.
func (n *Node) sayState(a ownership.StateChanged) {
	if a.In == n.saidIn {
		return
	}
	n.saidIn = a.In
	switch {
	case a.In:
		n.cfg.Log.Info("this host is in: it owns its part of the keys")
	case a.Why == ownership.WhyPaused || n.machine.Leaving():
	default:
		n.cfg.Log.Warn("this host is out: it owns no keys", "reason", a.Why)
	}
}

// stop is a time in which this process did not run.
type stop struct{ ended, length time.Duration }

// stood records a gap in the clock that ends now.
func (n *Node) stood(now, gap time.Duration) {
	if gap > n.cfg.MaxSkew/2 {
		n.lastStop.Store(&stop{now, gap})
	}
}

// ownStop reports whether another clock seems behind only because this process did not
// run: the message that it reads now was written during the stop.
func (n *Node) ownStop(err error) bool {
	var e *peer.SkewError
	if !errors.As(err, &e) || e.Ahead > 0 {
		return false
	}
	now := n.cfg.Clock.Read().Boot
	n.CheckPause(now) // finds the stop, if nothing else has
	s := n.lastStop.Load()
	return s != nil && now-s.ended < n.cfg.Bound/2 && e.Behind <= s.length+n.cfg.MaxSkew
}

// lines limits log lines that other hosts cause: one a minute for each host and
// subject. The value is the time of the last line. Guarded by the node's lock.
type lines map[string]time.Duration

const (
	lineEvery = time.Minute
	maxLines  = 256 // hosts and subjects; beyond them there are no lines
)

// due reports whether a line may be written.
func (l *lines) due(what string, now time.Duration) bool {
	if *l == nil {
		*l = lines{}
	}
	if at, ok := (*l)[what]; ok && now-at < lineEvery {
		return false
	}
	if len(*l) >= maxLines {
		maps.DeleteFunc(*l, func(_ string, at time.Duration) bool { return now-at >= lineEvery })
	}
	if len(*l) >= maxLines {
		return false
	}
	(*l)[what] = now
	return true
}

// line is due for callers without the lock.
func (n *Node) line(what string, node kv.NodeID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lines.due(what+" "+string(node), n.cfg.Clock.Read().Boot)
}
