package measure

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar/benchmarks/member"
	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// crowdTime is how long a crowd may take.
const crowdTime = 30 * time.Second

// asked counts the answers to an app.
type asked struct {
	answered, others int64
	status           wire.Status
}

// ask sends n requests for a key in one write, each with a timeout, and reads their answers. They are GETs, or
// LEASEs if load is not nil.
func (l *line) ask(ctx context.Context, within time.Duration, key string, n int, load func() ([]byte, error)) (t asked, err error) {
	op := wire.OpGet
	if load != nil {
		op = wire.OpLease
	}
	var out []byte
	for i := range n {
		out = wire.AppendRequest(out, &wire.Request{ID: uint64(i), Op: op, Key: []byte(key), TTLMS: wire.TTLDefault, TimeoutMS: uint32(within.Milliseconds())})
	}
	_ = l.nc.SetDeadline(time.Now().Add(within + crowdTime))
	stop := context.AfterFunc(ctx, func() { _ = l.nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := l.nc.Write(out); err != nil {
		return t, err
	}
	fill := uint64(n) // the id of FILL
	for left := n; left > 0; left-- {
		if err := l.read(); err != nil {
			return t, err
		}
		var r wire.Reply
		if err = wire.DecodeReply(op, l.frame, &r); r.ID == fill {
			err = wire.DecodeReply(wire.OpFill, l.frame, &r)
		}
		if err != nil {
			return t, err
		}
		switch {
		case r.ID == fill: // it does not count
		case r.Status == wire.OK:
			t.answered++
		case r.Status == wire.Lease && load != nil:
			value, err := load()
			if err != nil {
				return t, err
			}
			q := wire.Request{ID: fill, Op: wire.OpFill, Key: []byte(key), Token: append([]byte(nil), r.Token...), Value: value, TTLMS: wire.TTLDefault}
			if _, err := l.nc.Write(wire.AppendRequest(nil, &q)); err != nil {
				return t, err
			}
			t.answered++ // it has the value itself
			left++
		default:
			t.others++
			t.status = r.Status
		}
	}
	return t, nil
}

// crowds makes all apps ask at once for one cold key after another: of sidecars with an
// origin, of sidecars whose apps load, and of groupcache.
func (b *Bench) crowds(ctx context.Context, p record.Parameters) {
	defer b.scope()()
	check(peers.BuildMember(ctx, b.dir))
	c := b.openCrowd(ctx, p)
	names := []string{record.OriginLoads, record.AppsLoad, record.GroupcacheLoads}
	shape := fmt.Sprintf("%s GETs of one cold key at once, %d hosts", record.Commas(p.Hosts*p.Conns*p.Depth), p.Hosts)
	for n := range p.Cold {
		for i := range names {
			at := (n + i) % len(names)
			of, err := c.gather(ctx, names[at], fmt.Sprintf("cold-%d-%d", at, n))
			if err != nil {
				fail("%s: %w", names[at], err)
			}
			b.put(shape, names[at], of...)
		}
	}
	for n := range p.Hastes {
		ours, theirs := c.haste(ctx, n)
		shape := fmt.Sprintf("a caller with %d ms waits for a load of %d ms", p.Haste, p.OriginMS)
		b.put(shape, record.Sidecar, figure{"ms until the answer", 1000 * ours.Seconds()})
		b.put(shape, record.Groupcache, figure{"ms until the answer", 1000 * theirs.Seconds()})
	}
}

// crowd is the apps, and the servers that they ask.
type crowd struct {
	p      record.Parameters
	origin *peers.Origin
	nodes  []*peers.Member
	apps   map[string][]*line // by namespace; the apps of one host are adjacent
}

// openCrowd starts sidecars, as many nodes of groupcache, and the apps of each namespace at each host.
func (b *Bench) openCrowd(ctx context.Context, p record.Parameters) *crowd {
	c := &crowd{p: p, origin: b.startOrigin(p, 0, time.Duration(p.OriginMS)*time.Millisecond), apps: map[string][]*line{}}
	o := b.options(p, "")
	o.Config = b.config(c.origin, "")
	cluster := b.startHosts(ctx, p.Hosts, 0, o)
	all := addresses(p.Hosts)
	for _, self := range all {
		c.nodes = append(c.nodes, b.startMember(ctx, record.Groupcache, "groupcache-go", peers.MemberOptions{Options: o, Self: self, All: all, Origin: c.origin.URL()}))
	}
	for _, space := range []string{loadedSpace, appsSpace} {
		for _, h := range cluster.Hosts() {
			for range p.Conns {
				c.apps[space] = append(c.apps[space], b.openLine(h.Server, space, p))
			}
		}
	}
	return c
}

// gather makes all apps of a side ask for one key.
func (c *crowd) gather(ctx context.Context, name, key string) ([]figure, error) {
	var g errgroup.Group
	begun := time.Now()
	var told []asked
	if name == record.GroupcacheLoads {
		told = make([]asked, len(c.nodes))
		for i, m := range c.nodes {
			g.Go(func() error {
				a, err := m.Crowd(member.CrowdOrder{Key: key, Callers: c.p.Conns * c.p.Depth})
				told[i] = asked{answered: a.Answered, others: a.Errors}
				return err
			})
		}
	} else {
		space, load := loadedSpace, (func() ([]byte, error))(nil)
		if name == record.AppsLoad {
			space, load = appsSpace, func() ([]byte, error) { return member.Load(ctx, http.DefaultClient, c.origin.URL(), key) }
		}
		told = make([]asked, len(c.apps[space]))
		for i, a := range c.apps[space] {
			g.Go(func() (err error) {
				told[i], err = a.ask(ctx, crowdTime, key, c.p.Depth, load)
				return err
			})
		}
	}
	err := g.Wait()
	took := time.Since(begun)
	var sum asked
	for _, t := range told {
		if sum.answered, sum.others = sum.answered+t.answered, sum.others+t.others; t.others > 0 {
			sum.status = t.status
		}
	}
	return []figure{{"calls of the origin", float64(c.origin.Calls(key))}, {"requests", float64(sum.answered + sum.others)}, {"requests that got no value", float64(sum.others)},
		{"status", float64(sum.status)}, {"ms until all are answered", 1000 * took.Seconds()}}, err
}

// haste makes one request for a key, and then another one with less time than the load
// takes. It returns after which time the second request was answered, by the sidecar and by groupcache. On a busy
// machine that may come so late that the load has ended: then it tries another key.
func (c *crowd) haste(ctx context.Context, n int) (ours, theirs time.Duration) {
	within := time.Duration(c.p.Haste) * time.Millisecond
	for try := 1; ; try++ {
		t, took, err := c.late(ctx, within, fmt.Sprintf("haste-%d-%d", n, try))
		check(err)
		ours = took
		// The owner answers TIMEOUT. A host that does not hear from the owner in time answers
		// MISS.
		if t.answered == 0 {
			break
		}
		if try == 5 {
			fail("one with %v was given a load of %d ms", within, c.p.OriginMS)
		}
	}
	a := must(c.nodes[0].Crowd(member.CrowdOrder{Key: fmt.Sprintf("haste-%d-groupcache", n), Callers: 1, Haste: within}))
	return ours, a.Left
}

// late makes a request for a key, and another one while it is loaded. It returns what the
// other got, and after which time.
func (c *crowd) late(ctx context.Context, within time.Duration, key string) (asked, time.Duration, error) {
	first, second := c.apps[loadedSpace][0], c.apps[loadedSpace][min(1, c.p.Conns-1)]
	var g errgroup.Group
	g.Go(func() error {
		t, err := first.ask(ctx, crowdTime, key, 1, nil)
		if err == nil && t.answered != 1 {
			err = fmt.Errorf("who began the load is answered %s", t.status)
		}
		return err
	})
	time.Sleep(member.HasteAfter)
	begun := time.Now()
	t, err := second.ask(ctx, within, key, 1, nil)
	took := time.Since(begun)
	if err != nil {
		err = fmt.Errorf("one in haste: %w", err)
	}
	return t, took, errors.Join(g.Wait(), err)
}
