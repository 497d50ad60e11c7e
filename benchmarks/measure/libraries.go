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
func (b *Bench) startLibraries(ctx context.Context, p record.Parameters) (l *libraries, stop func(), err error) {
	l = &libraries{asking: map[string]*peers.Member{}}
	var ends []func()
	stop = func() {
		for i := range ends {
			ends[len(ends)-1-i]()
		}
	}
	for _, of := range libraryNames {
		if err := b.startLibrary(ctx, l, of.name, p, &ends); err != nil {
			stop()
			return nil, nil, err
		}
	}
	return l, stop, nil
}

func (b *Bench) startLibrary(ctx context.Context, l *libraries, name string, p record.Parameters, ends *[]func()) error {
	o := b.options(p, "")
	var all []string
	for range 2 {
		address, err := peers.FreeAddress()
		if err != nil {
			return err
		}
		all = append(all, address)
	}
	mo := peers.MemberOptions{Options: o, Self: all[0], All: all}
	if name == record.Embedded { // its owner is the program that users run
		o.Label, o.Place = "-owner", &peers.Place{Node: "owner", Bind: all[0], Join: all}
		s, err := peers.Start(ctx, record.Sidecar, o)
		if err != nil {
			return err
		}
		*ends = append(*ends, s.Stop)
	} else {
		m, err := peers.StartMember(ctx, name, mo)
		if err != nil {
			return err
		}
		*ends = append(*ends, m.Close)
	}
	mo.Self, mo.Asks, mo.Keys, mo.Workers = all[1], true, p.Keys, clusterConns
	begun := time.Now()
	m, err := peers.StartMember(ctx, name, mo)
	if err != nil {
		return err
	}
	*ends = append(*ends, m.Close)
	l.asking[name] = m
	if m.Version != "" {
		b.versions[name] = m.Version
	}
	if name == record.Embedded {
		if l.app, err = client.Dial(ctx, client.Config{Socket: m.Socket(), DialTimeout: 10 * time.Second}); err != nil {
			return err
		}
		*ends = append(*ends, func() { _ = l.app.Close() })
	}
	b.logf("%s: two nodes, %d keys of the other, after %.1f s", name, p.Keys, time.Since(begun).Seconds())
	return nil
}

// fromCopies returns the share, in %, of reads of other hosts' keys that copies answered,
// between two statistics.
func fromCopies(before, after cachesidecar.Stats) figure {
	copies := (after.L1.Hits - after.L1.Refused) - (before.L1.Hits - before.L1.Refused)
	asked := after.Cluster.PeerReads + after.Cluster.Joined - before.Cluster.PeerReads - before.Cluster.Joined
	return figure{"from copies, %", 100 * float64(copies) / float64(max(copies+asked, 1))}
}
