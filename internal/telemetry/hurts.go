package telemetry

import "github.com/cachesidecar/cachesidecar"

// HurtsOf returns what has gone wrong on a host since its start, and what the limits cost. What is wrong now is
// in ConditionOf.
func HurtsOf(st *cachesidecar.Stats) (f Findings) {
	for i := range st.Namespaces {
		f.hurtsOfNamespace(&st.Namespaces[i])
	}
	socket, store, cluster := &st.Connections, &st.L2, &st.Cluster
	f.addCounts("connections cut off", socket.Rejected, "over the limit", socket.SlowReaders, "took no answers",
		socket.SlowFrames, "sent too slowly", socket.BadFrames, "sent bad frames",
		socket.OverBudget, "used too much memory")
	f.addCounts("connections that wait for their turn to begin", socket.Waiting, "(their users open many at once)")
	f.addCounts("lack of memory", socket.Dropped, "requests BUSY unread",
		socket.Buffers.Refused, "times none for a connection")
	for _, s := range st.Shares {
		f.addCounts("requests refused because their client had too many "+s.Name, s.Refused, "")
	}
	denied := int64(0)
	for _, n := range socket.Denied {
		denied += n
	}
	f.addCounts("requests without the right", denied, "")
	f.addCounts("writes refused because their callers had given up", st.Overdue, "")
	f.addCounts("times that the socket's file was gone and was made again", socket.Remade, "")
	f.addCounts("writes refused for lack of room", store.NoRoom, "")
	f.addCounts("chosen hashes", store.Collided, "evicted for a key of the same hash",
		store.CrowdedOut, "in full pages", store.SplitsRefused, "splits refused")
	f.addCounts("pauses of the process, after which it owned nothing", cluster.Pauses, "")
	f.addCounts("other hosts", cluster.PollFailures, "polls failed", cluster.PeerErrors, "requests to owners failed",
		cluster.Handoff.Failed, "handoffs ended early", cluster.Refused, "greetings refused",
		cluster.Conflicts, "conflicts of names")
	f.addCounts("lines of the log", st.Log.LeftOut, "left out because of their number", st.Log.Lost, "lost")
	f.addCounts("connections to the HTTP port closed because of their number", st.HTTP.Closed, "")
	return f
}

func (f *Findings) hurtsOfNamespace(ns *cachesidecar.NamespaceStats) {
	for i := range ns.Failures {
		if failure := &ns.Failures[i]; failure.Error != "" && !OriginFails(ns, failure) {
			*f = append(*f, originFailure(ns, failure))
		}
	}
	f.addCounts("origin of "+ns.Name, ns.Loads.Shed, "loads refused to protect it",
		ns.Through.Unknown, "writes of unknown outcome", ns.KeyFilter.Failures, "failed builds of the key filter")
	if ns.Recent.Evicted == 0 { // else its condition says so
		f.addCounts("namespace "+ns.Name+" was full", ns.QuotaEvicted, "entries evicted over its quota")
	}
}
