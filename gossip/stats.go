package gossip

import "github.com/cachesidecar/cachesidecar"

// Stats returns the counts so far. The caller counts the processes that only gossip reports.
func (g *Gossip) Stats() cachesidecar.GossipStats {
	s := cachesidecar.GossipStats{
		Compressed: g.filter.compressed.Load(), Foreign: g.filter.foreign.Load(), Refused: g.filter.refused.Load(),
		Streams: int64(g.filter.streams()),
	}
	s.Garbage = max(0, g.garbage.Load()-s.Compressed-s.Foreign-s.Refused)
	return s
}
