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
func (b *Bench) Cluster(ctx context.Context, p record.Parameters) {
	b.afar(ctx, p)
	b.kills(ctx, p)
	b.moves(ctx, p)
}

// startCluster starts the given number of sidecars. The label tells their sockets from
// those of other clusters.
func (b *Bench) startCluster(ctx context.Context, p record.Parameters, hosts int, label string) *peers.Cluster {
	return b.startHosts(ctx, hosts, time.Duration(p.Bound)*time.Millisecond, b.options(p, label))
}

// afar measures reads of keys that another host owns.
func (b *Bench) afar(ctx context.Context, p record.Parameters) {
	defer b.scope()()
	check(peers.BuildMember(ctx, b.dir))
	f := b.openField(ctx, p, b.startCluster(ctx, p, 2, ""))
	echos := []*peers.Server{b.start(ctx, record.Echo, b.options(p, "")), b.start(ctx, record.EchoTCP, b.options(p, ""))}
	libraries := b.startLibraries(ctx, p)
	for round := range p.Rounds {
		f.copies(ctx, 1, round)
		f.copies(ctx, 64, round)
		f.latency(ctx, echos, round)
		f.remote(ctx, libraries, round)
	}
}

// field is two hosts, with the keys of each.
type field struct {
	b           *Bench
	p           record.Parameters
	asked       *peers.Host
	own, others []uint64
}

// openField fills two hosts, the first of which is asked.
func (b *Bench) openField(ctx context.Context, p record.Parameters, c *peers.Cluster) *field {
	f := &field{b: b, p: p, asked: c.Hosts()[0]}
	owners := must(c.Owners(ctx, f.asked, 2*p.Keys))
	f.own, f.others = owners[f.asked.Node()], owners[c.Hosts()[1].Node()]
	if least := min(len(f.own), len(f.others)); least < p.Hot {
		fail("one host owns %d of %d keys alone: give more keys", least, 2*p.Keys)
	}
	fill(ctx, f.asked.Server, 2*p.Keys)
	return f
}

// among draws keys from a list.
func among(list []uint64, round int) func(conn, i int) uint64 {
	draw := uniform(uint64(round), len(list))
	return func(conn, i int) uint64 { return list[draw(conn, i)] }
}

// enter adds GETs of some keys to a contest.
func (f *field) enter(c *contest, name string, fresh bool, keys []uint64, conns, depth, round int) {
	protocol := f.asked.Get
	if fresh {
		protocol = peers.Fresh{Sidecar: load.Sidecar{KeySize: f.p.KeySize}}
	}
	c.enter(name, load.Config{
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
func (f *field) copies(ctx context.Context, depth, round int) {
	c := &contest{}
	defer c.close()
	f.enter(c, record.OwnKeys, false, f.own[:f.p.Hot], clusterConns, depth, round)
	f.enter(c, record.Copies, false, f.others[:f.p.Hot], clusterConns, depth, round)
	for _, s := range c.sides { // the copies are made before the first turn
		must(s.Run(ctx, 0, 100*time.Millisecond))
	}
	before := must(f.asked.Stats(ctx))
	shape := fmt.Sprintf(copyHere, clusterConns, depth)
	f.b.play(ctx, c, &f.p, round, shape)
	f.b.put(shape, record.Copies, fromCopies(before, must(f.asked.Stats(ctx))))
}

// latency compares one fresh GET at a time with the two round trips that it needs at
// least.
func (f *field) latency(ctx context.Context, echos []*peers.Server, round int) {
	c := &contest{}
	defer c.close()
	f.enter(c, record.OwnersAnswer, true, f.others, 1, 1, round)
	for i, name := range []string{record.EchoUnixSide, record.EchoTCPSide} {
		c.enter(name, load.Config{Dial: echos[i].Dial, Protocol: echos[i].Get, Conns: 1, Pipeline: 1, Key: func(int, int) uint64 { return 0 }})
	}
	shape := fmt.Sprintf(ownerAnswers, 1)
	results := f.b.play(ctx, c, &f.p, round, shape)
	p50 := func(name string) float64 { return float64(results[name].Latency.ValueAtQuantile(50)) }
	f.b.put(shape, record.OwnersAnswer, figure{"p50 / p50 of echo, Unix and TCP together", p50(record.OwnersAnswer) / (p50(record.EchoUnixSide) + p50(record.EchoTCPSide))})
}

// remote compares reads that an owner in another process answers.
func (f *field) remote(ctx context.Context, l *libraries, round int) {
	c := &contest{}
	defer c.close()
	f.enter(c, record.ThroughSocket, true, f.others, clusterConns, 1, round)
	for _, of := range libraryNames {
		c.add(of.side, l.asking[of.name])
	}
	before := must(l.app.Stats(ctx))
	shape := fmt.Sprintf(ownerAnswers, clusterConns)
	results := f.b.play(ctx, c, &f.p, round, shape)
	after := must(l.app.Stats(ctx))
	copied := fromCopies(before, after)
	if asked, n := after.Cluster.PeerReads-before.Cluster.PeerReads, results[record.EmbeddedSide].Requests; copied.value == 0 && asked < n {
		fail("the embedded sidecar asked its owner for %d of %d keys: the comparison is of what the owner answers", asked, n)
	}
	f.b.put(shape, record.EmbeddedSide, copied)
}
