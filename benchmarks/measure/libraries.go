package measure

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/client"
)

// libraryNames are the sides that make the load in the process that has the cache.
var libraryNames = []struct{ name, side string }{
	{record.Embedded, record.EmbeddedSide}, {record.Groupcache, record.GroupcacheSide}, {record.Olric, record.OlricSide},
}

// libraries are two nodes of each library: one that owns the keys, and one that asks it.
type libraries struct {
	asking map[string]*peers.Member
	app    *client.Client // of the embedded sidecar
}

// startLibraries starts them, one after the other.
func (b *Bench) startLibraries(ctx context.Context, p record.Parameters) *libraries {
	l := &libraries{asking: map[string]*peers.Member{}}
	for _, of := range libraryNames {
		begun := time.Now()
		l.asking[of.name] = b.startLibrary(ctx, of.name, p)
		b.logf("%s: two nodes, %d keys of the other, after %.1f s", of.name, p.Keys, time.Since(begun).Seconds())
	}
	l.app = must(client.Dial(ctx, client.Config{Socket: l.asking[record.Embedded].Socket(), DialTimeout: 10 * time.Second}))
	b.closes(func() { _ = l.app.Close() })
	return l
}

// startLibrary starts the node that owns, and returns the one that asks.
func (b *Bench) startLibrary(ctx context.Context, name string, p record.Parameters) *peers.Member {
	all := addresses(2)
	o := peers.MemberOptions{Options: b.options(p, ""), Self: all[0], All: all}
	if name == record.Embedded { // its owner is the program that users run
		owner := b.options(p, "-owner")
		owner.Place = &peers.Place{Node: "owner", Bind: all[0], Join: all}
		b.start(ctx, record.Sidecar, owner)
	} else {
		b.startMember(ctx, name, name, o)
	}
	o.Self, o.Asks, o.Keys, o.Workers = all[1], true, p.Keys, clusterConns
	return b.startMember(ctx, name, name, o)
}

// fromCopies returns the share, in %, of reads of other hosts' keys that copies answered,
// between two statistics.
func fromCopies(before, after cachesidecar.Stats) figure {
	copies := (after.L1.Hits - after.L1.Refused) - (before.L1.Hits - before.L1.Refused)
	asked := after.Cluster.PeerReads + after.Cluster.Joined - before.Cluster.PeerReads - before.Cluster.Joined
	return figure{"from copies, %", 100 * float64(copies) / float64(max(copies+asked, 1))}
}
