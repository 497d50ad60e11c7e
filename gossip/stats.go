package gossip

// Stats counts what happened.
type Stats struct {
	Members   int   // alive, this node included
	Health    int   // memberlist's own score of this node: 0 is healthy
	Garbage   int64 // unreadable or refused packets, streams, metas and payloads
	Rejoins   int64 // joins that a node answered
	Sent      int64 // payloads that went out, copies and others' included
	Dropped   int64 // payloads without room, or too late
	Datagrams int   // waiting to go out

	// Parts of Garbage: compressed messages, and messages that name another
	// cluster.
	Compressed, Foreign int64
	Streams             int   // open, from others
	Refused             int64 // streams beyond their number, also part of Garbage
}

// Stats returns the counts so far.
func (g *Gossip) Stats() Stats {
	s := Stats{
		Members: 1 + int(g.living.Load()), Health: g.list.GetHealthScore(),
		Garbage: g.garbage.Load(), Rejoins: g.rejoins.Load(),
	}
	s.Sent, s.Dropped, s.Datagrams = g.payloads.stats()
	s.Compressed, s.Foreign, s.Refused = g.filter.compressed.Load(), g.filter.foreign.Load(), g.filter.refused.Load()
	s.Streams = g.filter.streams()
	return s
}
