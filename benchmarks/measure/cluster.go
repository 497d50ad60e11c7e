package measure

import (
	"context"
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/load"
)

// Cluster measures several hosts: the cost of reading another host's key, what happens to
// a killed host's keys, and the results of reads while hosts come and go.
func (b *Bench) Cluster(ctx context.Context, p record.ClusterParameters) (rows []record.ClusterRow, err error) {
	for _, part := range []func(context.Context, record.ClusterParameters) ([]record.ClusterRow, error){b.afar, b.kills, b.moves} {
		more, err := part(ctx, p)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

// startCluster starts the given number of sidecars. The label tells their sockets from
// those of other clusters.
func (b *Bench) startCluster(ctx context.Context, p record.ClusterParameters, hosts int, label string) (*peers.Cluster, error) {
	o := b.hostOptions(p)
	o.Label = label
	begun := time.Now()
	c, err := peers.StartCluster(ctx, hosts, time.Duration(p.Bound)*time.Millisecond, o)
	if err == nil {
		b.logf("%d hosts are one cache after %.1f s", hosts, time.Since(begun).Seconds())
	}
	return c, err
}

func (b *Bench) hostOptions(p record.ClusterParameters) peers.Options {
	return peers.Options{Dir: b.dir, Bytes: p.Limit, KeySize: p.KeySize, ValueSize: p.ValueSize}
}

// afar measures reads of keys that another host owns.
func (b *Bench) afar(ctx context.Context, p record.ClusterParameters) (rows []record.ClusterRow, err error) {
	if err := peers.BuildMember(ctx, b.dir); err != nil {
		return nil, err
	}
	c, err := b.startCluster(ctx, p, 2, "")
	if err != nil {
		return nil, err
	}
	defer c.Stop()
	f := &field{b: b, p: p, c: c, asked: c.Hosts()[0]}
	owners, err := c.Owners(ctx, f.asked, 2*p.Keys)
	if err != nil {
		return nil, err
	}
	f.own, f.others = owners[f.asked.Node()], owners[c.Hosts()[1].Node()]
	if least := min(len(f.own), len(f.others)); least < p.Hot {
		return nil, fmt.Errorf("one host owns %d of %d keys alone: give more keys", least, 2*p.Keys)
	}
	if _, err := fill(ctx, f.asked.Server, 2*p.Keys); err != nil {
		return nil, err
	}
	o := b.hostOptions(p)
	echos, stop, err := b.startAll(ctx, []string{record.Echo, record.EchoTCP}, o)
	if err != nil {
		return nil, err
	}
	defer stop()
	libraries, stop, err := b.startLibraries(ctx, p, o)
	if err != nil {
		return nil, err
	}
	defer stop()
	for round := range p.Rounds {
		for _, depth := range []int{1, 64} {
			row, err := f.copies(ctx, depth, round)
			if err != nil {
				return nil, err
			}
			rows = append(rows, row)
		}
		row, err := f.latency(ctx, echos, round)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
		if row, err = f.remote(ctx, libraries, round); err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// field is two hosts, with the keys of each.
type field struct {
	b           *Bench
	p           record.ClusterParameters
	c           *peers.Cluster
	asked       *peers.Host
	own, others []uint64
}

// among draws keys from a list.
func among(list []uint64, round int) func(conn, i int) uint64 {
	draw := uniform(uint64(round), len(list))
	return func(conn, i int) uint64 { return list[draw(conn, i)] }
}

// enter adds GETs of some keys to a contest.
func (f *field) enter(c *contest, name string, fresh bool, keys []uint64, conns, depth, round int) error {
	protocol := f.asked.Get
	if fresh {
		protocol = peers.Fresh{Sidecar: load.Sidecar{KeySize: f.p.KeySize}}
	}
	return c.enter(name, load.Config{
		Dial: f.asked.Dial, Protocol: protocol, Conns: conns, Pipeline: depth,
		Batches: batches(f.p.Cycle, conns, depth), Key: among(keys, round),
	})
}

// clusterConns is the number of connections, except for the latency of one request.
const clusterConns = 16

// copies compares GETs of the host's own keys with GETs of another host's keys that it
// has copies of. Copies do not live long, and reads make them again; the sidecar's own
// count says how many reads that took.
func (f *field) copies(ctx context.Context, depth, round int) (row record.ClusterRow, err error) {
	c := &contest{}
	defer c.close()
	row = record.ClusterRow{Part: record.Copies, Round: round + 1, Conns: clusterConns, Depth: depth, Copied: map[string]float64{}}
	if err := f.enter(c, record.Owned, false, f.own[:f.p.Hot], row.Conns, depth, round); err != nil {
		return row, err
	}
	if err := f.enter(c, record.Copied, false, f.others[:f.p.Hot], row.Conns, depth, round); err != nil {
		return row, err
	}
	for _, l := range c.loads { // the copies are made before the first turn
		if _, err := l.Run(ctx, 0, 100*time.Millisecond); err != nil {
			return row, err
		}
	}
	before, err := f.asked.Stats(ctx)
	if err != nil {
		return row, err
	}
	if row.Sides, err = c.play(ctx, f.p.Turns, round); err != nil {
		return row, err
	}
	after, err := f.asked.Stats(ctx)
	if err != nil {
		return row, err
	}
	row.Copied[record.Copied] = fromCopies(before, after)
	f.b.logf("round %d: GET %d × %2d: %.0f k/s of its own keys, %.0f of copies, ratio %.2f; %.2f %% were copies", row.Round, row.Conns, depth,
		row.Sides[record.Owned].PerSecond()/1000, row.Sides[record.Copied].PerSecond()/1000,
		row.Sides[record.Copied].PerSecond()/row.Sides[record.Owned].PerSecond(), 100*row.Copied[record.Copied])
	return row, nil
}

// latency compares one fresh GET at a time with the two round trips that it needs at
// least.
func (f *field) latency(ctx context.Context, echos []*peers.Server, round int) (row record.ClusterRow, err error) {
	c := &contest{}
	defer c.close()
	row = record.ClusterRow{Part: record.Latency, Round: round + 1, Conns: 1, Depth: 1}
	if err := f.enter(c, record.Sidecar, true, f.others, 1, 1, round); err != nil {
		return row, err
	}
	for _, s := range echos {
		if err := c.enter(s.Name, load.Config{Dial: s.Dial, Protocol: s.Get, Conns: 1, Pipeline: 1, Key: func(int, int) uint64 { return 0 }}); err != nil {
			return row, err
		}
	}
	if row.Sides, err = c.play(ctx, f.p.Turns, round); err != nil {
		return row, err
	}
	p50 := func(name string) float64 { return row.Sides[name].At(50) }
	f.b.logf("round %d: GET of the owner, 1 × 1: p50 %.1f µs; echo %.1f, over TCP %.1f", row.Round, p50(record.Sidecar), p50(record.Echo), p50(record.EchoTCP))
	return row, nil
}

// remote compares reads that an owner in another process answers.
func (f *field) remote(ctx context.Context, l *libraries, round int) (row record.ClusterRow, err error) {
	c := &contest{}
	defer c.close()
	row = record.ClusterRow{Part: record.Remote, Round: round + 1, Conns: clusterConns, Depth: 1, Copied: map[string]float64{}}
	if err := f.enter(c, record.Sidecar, true, f.others, row.Conns, 1, round); err != nil {
		return row, err
	}
	for _, name := range libraryNames {
		c.add(name, l.asking[name])
	}
	before, err := l.stats(ctx)
	if err != nil {
		return row, err
	}
	if row.Sides, err = c.play(ctx, f.p.Turns, round); err != nil {
		return row, err
	}
	after, err := l.stats(ctx)
	if err != nil {
		return row, err
	}
	row.Copied[record.Embedded] = fromCopies(before, after)
	if asked, n := after.Cluster.PeerReads-before.Cluster.PeerReads, row.Sides[record.Embedded].Requests; row.Copied[record.Embedded] == 0 && asked < n {
		return row, fmt.Errorf("the embedded sidecar asked its owner for %d of %d keys: the comparison is of what the owner answers", asked, n)
	}
	side := func(name string) float64 { return row.Sides[name].PerSecond() / 1000 }
	f.b.logf("round %d: GET of the owner, %d × 1: sidecar %.1f k/s, embedded %.1f, groupcache %.1f, olric %.1f; %.2f %% of the embedded one's were copies", row.Round, row.Conns,
		side(record.Sidecar), side(record.Embedded), side(record.Groupcache), side(record.Olric), 100*row.Copied[record.Embedded])
	return row, nil
}
