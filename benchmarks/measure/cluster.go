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
func (b *Bench) Cluster(ctx context.Context, p record.Parameters) error {
	for _, part := range []func(context.Context, record.Parameters) error{b.afar, b.kills, b.moves} {
		if err := part(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// startCluster starts the given number of sidecars. The label tells their sockets from
// those of other clusters.
func (b *Bench) startCluster(ctx context.Context, p record.Parameters, hosts int, label string) (*peers.Cluster, error) {
	begun := time.Now()
	c, err := peers.StartCluster(ctx, hosts, time.Duration(p.Bound)*time.Millisecond, b.options(p, label))
	if err == nil {
		b.logf("%d hosts are one cache after %.1f s", hosts, time.Since(begun).Seconds())
	}
	return c, err
}

// afar measures reads of keys that another host owns.
func (b *Bench) afar(ctx context.Context, p record.Parameters) error {
	if err := peers.BuildMember(ctx, b.dir); err != nil {
		return err
	}
	c, err := b.startCluster(ctx, p, 2, "")
	if err != nil {
		return err
	}
	defer c.Stop()
	f, err := b.openField(ctx, p, c)
	if err != nil {
		return err
	}
	echos, stop, err := b.startAll(ctx, []string{record.Echo, record.EchoTCP}, b.options(p, ""))
	if err != nil {
		return err
	}
	defer stop()
	libraries, stop, err := b.startLibraries(ctx, p)
	if err != nil {
		return err
	}
	defer stop()
	for round := range p.Rounds {
		for _, part := range []func() error{
			func() error { return f.copies(ctx, 1, round) }, func() error { return f.copies(ctx, 64, round) },
			func() error { return f.latency(ctx, echos, round) }, func() error { return f.remote(ctx, libraries, round) },
		} {
			if err := part(); err != nil {
				return err
			}
		}
	}
	return nil
}

// field is two hosts, with the keys of each.
type field struct {
	b           *Bench
	p           record.Parameters
	asked       *peers.Host
	own, others []uint64
}

// openField fills two hosts, the first of which is asked.
func (b *Bench) openField(ctx context.Context, p record.Parameters, c *peers.Cluster) (*field, error) {
	f := &field{b: b, p: p, asked: c.Hosts()[0]}
	owners, err := c.Owners(ctx, f.asked, 2*p.Keys)
	if err != nil {
		return nil, err
	}
	f.own, f.others = owners[f.asked.Node()], owners[c.Hosts()[1].Node()]
	if least := min(len(f.own), len(f.others)); least < p.Hot {
		return nil, fmt.Errorf("one host owns %d of %d keys alone: give more keys", least, 2*p.Keys)
	}
	_, err = fill(ctx, f.asked.Server, 2*p.Keys)
	return f, err
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

// Loads of the page.
const (
	copyHere     = "GET of another host's key, copy here, %d × %d"
	ownerAnswers = "GET of another host's key, its owner answers, %d × 1"
)

// copies compares GETs of the host's own keys with GETs of another host's keys that it
// has copies of. Copies do not live long, and reads make them again; the sidecar's own
// count says how many reads that took.
func (f *field) copies(ctx context.Context, depth, round int) error {
	c := &contest{}
	defer c.close()
	if err := f.enter(c, record.OwnKeys, false, f.own[:f.p.Hot], clusterConns, depth, round); err != nil {
		return err
	}
	if err := f.enter(c, record.Copies, false, f.others[:f.p.Hot], clusterConns, depth, round); err != nil {
		return err
	}
	for _, s := range c.sides { // the copies are made before the first turn
		if _, err := s.Run(ctx, 0, 100*time.Millisecond); err != nil {
			return err
		}
	}
	before, err := f.asked.Stats(ctx)
	if err != nil {
		return err
	}
	shape := fmt.Sprintf(copyHere, clusterConns, depth)
	if _, err = f.b.play(ctx, c, &f.p, round, shape); err != nil {
		return err
	}
	after, err := f.asked.Stats(ctx)
	f.b.put(shape, record.Copies, fromCopies(before, after))
	return err
}

// latency compares one fresh GET at a time with the two round trips that it needs at
// least.
func (f *field) latency(ctx context.Context, echos []*peers.Server, round int) error {
	c := &contest{}
	defer c.close()
	if err := f.enter(c, record.OwnersAnswer, true, f.others, 1, 1, round); err != nil {
		return err
	}
	for i, name := range []string{record.EchoUnixSide, record.EchoTCPSide} {
		if err := c.enter(name, load.Config{Dial: echos[i].Dial, Protocol: echos[i].Get, Conns: 1, Pipeline: 1, Key: func(int, int) uint64 { return 0 }}); err != nil {
			return err
		}
	}
	shape := fmt.Sprintf(ownerAnswers, 1)
	results, err := f.b.play(ctx, c, &f.p, round, shape)
	if err != nil {
		return err
	}
	p50 := func(name string) float64 { return float64(results[name].Latency.ValueAtQuantile(50)) }
	f.b.put(shape, record.OwnersAnswer, figure{"p50 / p50 of echo, Unix and TCP together", p50(record.OwnersAnswer) / (p50(record.EchoUnixSide) + p50(record.EchoTCPSide))})
	return nil
}

// remote compares reads that an owner in another process answers.
func (f *field) remote(ctx context.Context, l *libraries, round int) error {
	c := &contest{}
	defer c.close()
	if err := f.enter(c, record.ThroughSocket, true, f.others, clusterConns, 1, round); err != nil {
		return err
	}
	for _, of := range libraryNames {
		c.add(of.side, l.asking[of.name])
	}
	before, err := l.app.Stats(ctx)
	if err != nil {
		return err
	}
	shape := fmt.Sprintf(ownerAnswers, clusterConns)
	results, err := f.b.play(ctx, c, &f.p, round, shape)
	if err != nil {
		return err
	}
	after, err := l.app.Stats(ctx)
	if err != nil {
		return err
	}
	copied := fromCopies(before, after)
	if asked, n := after.Cluster.PeerReads-before.Cluster.PeerReads, results[record.EmbeddedSide].Requests; copied.value == 0 && asked < n {
		return fmt.Errorf("the embedded sidecar asked its owner for %d of %d keys: the comparison is of what the owner answers", asked, n)
	}
	f.b.put(shape, record.EmbeddedSide, copied)
	return nil
}
