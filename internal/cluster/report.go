package cluster

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// reporter writes to the process's log what happens to hosts: one line for each event.
// The line names the cause, not its consequences.
//
// The methods that the state calls run under the driver's lock, which guards saidIn. mu is
// locked last: no other lock is taken under it.
type reporter struct {
	log   *slog.Logger
	clock kv.Clock
	self  kv.Process

	saidIn bool // what the log has last said about this node

	mu    sync.Mutex
	lines map[string]time.Duration // the last of each subject and host
}

// ringChanged logs a new ring. It returns the dead processes that were not in the old
// ring.
func (r *reporter) ringChanged(members members, v, old *View, died []ownership.Died) (rest []ownership.Died) {
	gone := map[kv.Process]bool{r.self: true} // processes that another line is about
	var owners []ownership.Died
	for _, d := range died {
		if old.has(d.ID) {
			owners = append(owners, d)
		} else {
			rest = append(rest, d)
		}
		gone[d.ID] = true
	}
	r.hostsDied(owners, v, old)
	for _, m := range members {
		gone[m.left] = true
	}
	names := func(list []kv.Process) string {
		var names []string
		for _, id := range list {
			if !gone[id] {
				names = append(names, string(id.Node))
			}
		}
		return strings.Join(names, ", ")
	}
	if came, went := names(old.lacks(v)), names(v.lacks(old)); came != "" || went != "" {
		r.log.Info("the ring has changed", "came", came, "went", went, "hosts", len(v.hosts))
	}
	return rest
}

// hostsDied logs dead hosts: what each owned by the old ring, and which hosts own that
// by the new ring.
func (r *reporter) hostsDied(died []ownership.Died, v, old *View) {
	slices.SortFunc(died, func(a, b ownership.Died) int { return a.ID.Compare(b.ID) })
	for _, d := range died {
		why := "nothing is heard of it"
		if d.Again {
			why = "another process has its name: it was started again, or two hosts have one name"
		}
		owned, heirs := old.heirs(d.ID.Node, v)
		r.log.Warn("a host counts as dead", "node", d.ID.Node,
			"reason", why, "silent_for", d.Silence.Round(time.Millisecond),
			"owned_partitions", owned, "share", fmt.Sprintf("%.1f %%", 100*float64(owned)/kv.Partitions),
			"taken_over_by", heirs)
	}
}

// stateChanged logs whether this node is in, if that has changed. Pauses and leaves
// have lines of their own.
func (r *reporter) stateChanged(a ownership.StateChanged, leaving bool) {
	if a.In == r.saidIn {
		return
	}
	r.saidIn = a.In
	switch {
	case a.In:
		r.log.Info("this host is in: it owns its part of the keys")
	case a.Why == ownership.WhyPaused || leaving:
	default:
		r.log.Warn("this host is out: it owns no keys", "reason", a.Why)
	}
}

// isolated logs that this node is isolated, and why, or that it is no more.
func (r *reporter) isolated(was, why string, answers bool) {
	switch {
	case was == "" && why != "":
		r.log.Warn("this host is alone, and others should be there: set alone_ok if it may be alone", "reason", why)
	case was != "" && answers:
		r.log.Info("another host answers: this host is not alone any more")
	}
}

// handedOver logs how a handover has ended. heirs says whether another node is there to take over, and
// awaited that others have not fetched everything yet.
func (r *reporter) handedOver(h *handover, heirs, awaited bool) {
	took := h.Took.Round(time.Millisecond)
	switch {
	case h.Kept > 0 && !heirs:
		r.log.Info("no host is left to hand over to: all others leave too", "partitions", h.Owned, "not_taken", h.Kept)
	case h.Kept > 0:
		r.log.Warn("others have not taken over all in time", "partitions", h.Owned, "not_taken", h.Kept, "took", took)
	case awaited:
		r.log.Warn("others have not fetched all entries within leave_time: raise it if more are to go",
			"partitions", h.Owned, "took", took)
	default:
		r.log.Info("handed over: others own what this host owned", "partitions", h.Owned, "took", took)
	}
}

// hostLeft logs that this node has left.
func (r *reporter) hostLeft(owned int) {
	if owned == 0 {
		r.log.Info("this host has left")
		return
	}
	r.log.Info("this host has left: there is no other that could take over", "partitions", owned)
}

// feedLate logs that a feed of changes is late, once a minute, or in time again.
func (r *reporter) feedLate(c *certificate, now time.Duration) {
	switch {
	case !c.late && c.told:
		c.told = false
		r.log.Info("a feed of changes is in time again", "changes", c.Name)
	case !c.late, c.at == 0 && now-c.since < c.MaxLag: // a start
	case r.due("feed", kv.NodeID(c.Name)):
		c.told = true
		certified := "never since the start"
		if c.at > 0 {
			certified = fmt.Sprintf("%v ago", (now - c.at).Round(time.Millisecond))
		}
		r.log.Warn("a feed of changes is later than max_lag: values of its namespaces that were loaded are not served",
			"changes", c.Name, "namespaces", c.Namespaces, "certified", certified, "max_lag", c.MaxLag)
	}
}

// eventsUnreadable logs that a host's events cannot be decoded.
func (r *reporter) eventsUnreadable(node kv.NodeID, err error) {
	if r.due("unread", node) {
		r.log.Warn("the changes of a host cannot be read: its version may be another", "node", node, "error", err)
	}
}

// Lines that other hosts cause are limited: one a minute for each host and subject.
const (
	lineEvery = time.Minute
	maxLines  = 256 // hosts and subjects; beyond them there are no lines
)

// due reports whether a line about a subject and another host may be written.
func (r *reporter) due(subject string, node kv.NodeID) bool {
	now, what := r.clock.Read().Boot, subject+" "+string(node)
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, ok := r.lines[what]; ok && now-at < lineEvery {
		return false
	}
	if len(r.lines) >= maxLines {
		maps.DeleteFunc(r.lines, func(_ string, at time.Duration) bool { return now-at >= lineEvery })
	}
	if len(r.lines) >= maxLines {
		return false
	}
	r.lines[what] = now
	return true
}
