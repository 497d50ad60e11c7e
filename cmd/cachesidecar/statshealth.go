package main

import (
	"strings"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/condition"
)

// hurts returns what has gone wrong since the start, and what the limits cost.
func hurts(st *cachesidecar.Stats) (f condition.Findings) {
	for i := range st.Namespaces {
		ns := &st.Namespaces[i]
		for j := range ns.Failures {
			if x := &ns.Failures[j]; x.Error != "" && !condition.Fails(ns, x) {
				f = append(f, condition.Failure(ns, x))
			}
		}
		f.Counts("origin of "+ns.Name, ns.Loads.Shed, "loads refused to protect it",
			ns.Through.Unknown, "writes of unknown outcome", ns.KeyFilter.Failures, "failed builds of the key filter")
	}
	n, l, c := &st.Connections, &st.L2, &st.Cluster
	f.Counts("connections cut off", n.Rejected, "over the limit", n.SlowReaders, "took no answers",
		n.SlowFrames, "sent too slowly", n.BadFrames, "sent bad frames", n.OverBudget, "used too much memory")
	f.Counts("connections that wait for their turn to begin", n.Waiting, "(their users open many at once)")
	f.Counts("lack of memory", n.Dropped, "requests BUSY unread", n.Buffers.Refused, "times none for a connection")
	for _, s := range st.Shares {
		f.Counts("requests refused because their client had too many "+s.Name, s.Refused, "")
	}
	denied := int64(0)
	for _, n := range n.Denied {
		denied += n
	}
	f.Counts("requests without the right", denied, "")
	f.Counts("writes refused because their callers had given up", st.Overdue, "")
	f.Counts("times that the socket's file was gone and was made again", n.Remade, "")
	f.Counts("writes refused for lack of room", l.NoRoom, "")
	f.Counts("chosen hashes", l.Collided, "evicted for a key of the same hash", l.CrowdedOut, "in full pages",
		l.SplitsRefused, "splits refused")
	f.Counts("pauses of the process, after which it owned nothing", c.Pauses, "")
	f.Counts("other hosts", c.PollFailures, "polls failed", c.PeerErrors, "requests to owners failed",
		c.Handoff.Failed, "handoffs ended early", c.Refused, "greetings refused", c.Conflicts, "conflicts of names")
	f.Counts("lines of the log", st.Log.LeftOut, "left out because of their number", st.Log.Lost, "lost")
	f.Counts("connections to the HTTP port closed because of their number", st.HTTP.Closed, "")
	return f
}

// findingsShown is the most findings of one kind on a page.
const findingsShown = 12

// health writes the first lines of a host's page: whether it is well, and what hurts.
func (p *statsPage) health(st *cachesidecar.Stats) {
	text, why := condition.Of(st)
	if len(why) > 0 {
		text += ": "
	}
	p.list("health", text+condition.AtMost(why, findingsShown, "\n"))
	if f := hurts(st); len(f) > 0 {
		p.list("hurts", condition.AtMost(f, findingsShown, "\n"))
	}
	p.row()
}

// list adds the lines of a text, the first of which has a title.
func (p *statsPage) list(title, text string) {
	for line := range strings.SplitSeq(text, "\n") {
		p.row(title, line)
		title = ""
	}
}
