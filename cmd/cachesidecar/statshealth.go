package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar"
)

// A failure of an origin is of now if it is this young, or if the breaker is not closed. An
// older one is of the past, although no call has succeeded since.
const failsNow = 10 * time.Minute

// findings are sentences about a host.
type findings []string

// counts adds a number and what it counts, and so on, after a title. It leaves out what is
// zero, and the sentence if all is.
func (f *findings) counts(title string, numbers ...any) {
	var parts []string
	for i := 0; i < len(numbers); i += 2 {
		if n := numbers[i].(int64); n > 0 {
			parts = append(parts, strings.TrimSpace(count(n)+" "+numbers[i+1].(string)))
		}
	}
	if len(parts) > 0 {
		f.addf("%s: %s", title, strings.Join(parts, ", "))
	}
}

func (f *findings) addf(format string, args ...any) { *f = append(*f, fmt.Sprintf(format, args...)) }

// wrongNow returns what is wrong with a host at present: nothing if it is well.
func wrongNow(st *cachesidecar.Stats) (f findings) {
	c := &st.Cluster
	switch {
	case c.Drained:
		f.addf("drained: this host owns nothing, and serves through others (`cachesidecar drain --undo` ends that)")
	case c.Alone:
	case !c.In:
		f.addf("this host is out of the ring and owns nothing")
	}
	if c.Isolated != "" && !c.AloneOK && (c.In || c.Drained) {
		f.addf("alone: %s; set alone_ok if it may be alone", c.Isolated)
	}
	f.counts("refused hosts", st.Members["refused"], "(`cachesidecar members` says why)")
	f.counts("missing hosts", st.Members["missing"], "(`cachesidecar members` names them)")
	if names := withoutLease(c.Invalidations.Leases); len(names) > 0 {
		f.addf("no lease on %s: copies of its entries are not served", atMost(names, 5, ", "))
	}
	for i := range st.Namespaces {
		ns := &st.Namespaces[i]
		for j := range ns.Failures {
			if x := &ns.Failures[j]; failing(ns, x) {
				f = append(f, failure(ns, x, "fail"))
			}
		}
		if k := &ns.KeyFilter; k.Configured && !k.InUse && k.Error != "" {
			f.addf("the key filter of %s is not in use: %s", ns.Name, k.Error)
		}
		if ns.Warm.State == "failed" {
			f.addf("the keys of %s were not all loaded at the start: the log says why", ns.Name)
		}
		f.counts("origin of "+ns.Name+": writes that the new owners of their keys have not heard of",
			ns.Through.Unsettled, "")
	}
	if n := &st.Connections; n.Limit > 0 && n.Open >= n.Limit {
		f.addf("all %s connections of the socket are taken", count(n.Limit))
	}
	if b := &st.Connections.Buffers; b.Limit > 0 && b.Total() >= b.Limit/20*19 {
		f.addf("the memory of requests and answers is full: %s of %s, %s by %s",
			size(b.Total()), size(b.Limit), size(b.MostBy), b.Most)
	}
	for _, s := range st.Shares {
		if s.Limit > 0 && s.Used >= s.Limit {
			f.addf("all %s places of %s are taken, %s by %s", count(s.Limit), s.Name, count(s.MostBy), s.Most)
		}
	}
	return f
}

// withoutLease returns the hosts whose lease is missing.
func withoutLease(leases []cachesidecar.LeaseStats) (names []string) {
	for _, l := range leases {
		if l.AgeMS < 0 {
			names = append(names, l.Node)
		}
	}
	return names
}

// failing reports whether calls of an origin fail now.
func failing(ns *cachesidecar.NamespaceStats, x *cachesidecar.FailureStats) bool {
	return x.Calls == "loads" && (ns.Loads.BreakerOpen || ns.Loads.BreakerHalfOpen) ||
		x.InARow > 0 && x.AgeMS < failsNow.Milliseconds()
}

// failure describes the last failure of an origin's calls.
func failure(ns *cachesidecar.NamespaceStats, x *cachesidecar.FailureStats, verb string) string {
	age := time.Duration(x.AgeMS) * time.Millisecond
	more := []string{fmt.Sprintf("%v ago", age.Round(time.Second))}
	if x.InARow > 1 {
		more = append(more, count(x.InARow)+" in a row")
	}
	if x.Calls == "loads" && ns.Loads.Breaker != "closed" {
		more = append(more, "breaker "+ns.Loads.Breaker)
	}
	return fmt.Sprintf("origin of %s (%s): %s %s: %s (%s)",
		ns.Name, ns.Loads.Origin, x.Calls, verb, x.Error, strings.Join(more, ", "))
}

// hurts returns what has gone wrong since the start, and what the limits cost.
func hurts(st *cachesidecar.Stats) (f findings) {
	for i := range st.Namespaces {
		ns := &st.Namespaces[i]
		for j := range ns.Failures {
			if x := &ns.Failures[j]; x.Error != "" && !failing(ns, x) {
				f = append(f, failure(ns, x, "failed"))
			}
		}
		f.counts("origin of "+ns.Name, ns.Loads.Shed, "loads refused to protect it",
			ns.Through.Unknown, "writes of unknown outcome", ns.KeyFilter.Failures, "failed builds of the key filter")
	}
	n, l, c := &st.Connections, &st.L2, &st.Cluster
	f.counts("connections cut off", n.Rejected, "over the limit", n.SlowReaders, "took no answers",
		n.SlowFrames, "sent too slowly", n.BadFrames, "sent bad frames", n.OverBudget, "used too much memory")
	f.counts("connections that wait for their turn to begin", n.Waiting, "(their users open many at once)")
	f.counts("lack of memory", n.Dropped, "requests BUSY unread", n.Buffers.Refused, "times none for a connection")
	for _, s := range st.Shares {
		f.counts("requests refused because their client had too many "+s.Name, s.Refused, "")
	}
	denied := int64(0)
	for _, n := range n.Denied {
		denied += n
	}
	f.counts("requests without the right", denied, "")
	f.counts("writes refused because their callers had given up", st.Overdue, "")
	f.counts("times that the socket's file was gone and was made again", n.Remade, "")
	f.counts("writes refused for lack of room", l.NoRoom, "")
	f.counts("chosen hashes", l.Collided, "evicted for a key of the same hash", l.CrowdedOut, "in full pages",
		l.SplitsRefused, "splits refused")
	f.counts("pauses of the process, after which it owned nothing", c.Pauses, "")
	f.counts("other hosts", c.PollFailures, "polls failed", c.PeerErrors, "requests to owners failed",
		c.Handoff.Failed, "handoffs ended early", c.Refused, "greetings refused", c.Conflicts, "conflicts of names")
	f.counts("lines of the log", st.Log.LeftOut, "left out because of their number", st.Log.Lost, "lost")
	f.counts("connections to the HTTP port closed because of their number", st.HTTP.Closed, "")
	return f
}

// findingsShown is the most findings of one kind on a page.
const findingsShown = 12

// atMost joins the first texts of a list, and counts the rest.
func atMost(list []string, n int, between string) string {
	if len(list) > n {
		list = append(slices.Clone(list[:n]), fmt.Sprintf("and %d more", len(list)-n))
	}
	return strings.Join(list, between)
}

// health writes the first lines of a host's page: whether it is well, and what hurts.
func (p statsPage) health(st *cachesidecar.Stats) {
	text := "well"
	if wrong := wrongNow(st); len(wrong) > 0 {
		text = "not well: " + atMost(wrong, findingsShown, "\n\t")
	}
	p.line("health", "%s", text)
	if f := hurts(st); len(f) > 0 {
		p.line("hurts", "%s", atMost(f, findingsShown, "\n\t"))
	}
	fmt.Fprintln(p)
}
