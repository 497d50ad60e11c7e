package measure

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar/benchmarks/member"
	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/load"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// crowdTime is how long a crowd may take.
const crowdTime = 30 * time.Second

// app is a connection that asks for one key many times at once. One goroutine uses it.
type app struct {
	nc net.Conn
	in *bufio.Reader
}

// asked counts the answers to an app.
type asked struct {
	answered, others int64
	filled           bool // it got a token, and its value was stored
	status           wire.Status
}

func dialApp(s *peers.Server, namespace string) (*app, error) {
	nc, err := s.Dial()
	if err != nil {
		return nil, err
	}
	if err := (load.Sidecar{Namespace: namespace}).Greet(nc); err != nil {
		_ = nc.Close()
		return nil, err
	}
	return &app{nc, bufio.NewReader(nc)}, nil
}

func (a *app) close() { _ = a.nc.Close() }

// ask sends n requests for a key in one write and reads their answers. They are GETs, or
// LEASEs if load is not nil.
func (a *app) ask(ctx context.Context, key string, n int, load func() ([]byte, error)) (t asked, err error) {
	return a.askIn(ctx, crowdTime, key, n, load)
}

// askIn is ask with another timeout per request.
func (a *app) askIn(ctx context.Context, within time.Duration, key string, n int, load func() ([]byte, error)) (t asked, err error) {
	op := wire.OpGet
	if load != nil {
		op = wire.OpLease
	}
	var out []byte
	for i := range n {
		out = wire.AppendRequest(out, &wire.Request{ID: uint64(i), Op: op, Key: []byte(key), TTLMS: wire.TTLDefault, TimeoutMS: uint32(within.Milliseconds())})
	}
	_ = a.nc.SetDeadline(time.Now().Add(within + crowdTime))
	stop := context.AfterFunc(ctx, func() { _ = a.nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := a.nc.Write(out); err != nil {
		return t, err
	}
	fill := uint64(n) // the id of FILL
	for left := n; left > 0; left-- {
		r, err := a.read(op, fill)
		if err != nil {
			return t, err
		}
		switch {
		case r.ID == fill:
			t.filled = r.Status == wire.OK
		case r.Status == wire.OK:
			t.answered++
		case r.Status == wire.Lease && load != nil:
			value, err := load()
			if err != nil {
				return t, err
			}
			q := wire.Request{ID: fill, Op: wire.OpFill, Key: []byte(key), Token: append([]byte(nil), r.Token...), Value: value, TTLMS: wire.TTLDefault}
			if _, err := a.nc.Write(wire.AppendRequest(nil, &q)); err != nil {
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

func (a *app) read(op wire.Op, fill uint64) (r wire.Reply, err error) {
	var head [wire.LengthSize]byte
	if _, err := io.ReadFull(a.in, head[:]); err != nil {
		return r, err
	}
	frame := make([]byte, wire.FrameLength(head[:]))
	if _, err := io.ReadFull(a.in, frame); err != nil {
		return r, err
	}
	err = wire.DecodeReply(op, frame, &r)
	if r.ID == fill {
		err = wire.DecodeReply(wire.OpFill, frame, &r)
	}
	return r, err
}

// crowds makes all apps ask at once for one cold key after another: of sidecars with an
// origin, of sidecars whose apps load, and of groupcache.
func (b *Bench) crowds(ctx context.Context, p record.LoadsParameters) (rows []record.LoadsRow, err error) {
	if err := peers.BuildMember(ctx, b.dir); err != nil {
		return nil, err
	}
	takes := time.Duration(p.Takes) * time.Millisecond
	origin, err := peers.StartOrigin(takes, make([]byte, p.ValueSize))
	if err != nil {
		return nil, err
	}
	defer origin.Down()
	o := b.loadsOptions(p)
	if o.Config, err = b.config(origin, ""); err != nil {
		return nil, err
	}
	cluster, err := peers.StartCluster(ctx, p.Hosts, 0, o)
	if err != nil {
		return nil, err
	}
	defer cluster.Stop()
	nodes, stop, err := b.startCrowd(ctx, p, o, origin)
	if err != nil {
		return nil, err
	}
	defer stop()
	c := &crowd{p: p, origin: origin, cluster: cluster, nodes: nodes, apps: map[string][]*app{}}
	defer c.close()
	if err := c.dial(); err != nil {
		return nil, err
	}
	names := []string{record.Sidecar, record.Apps, record.Groupcache}
	for n := range p.Cold {
		row := record.LoadsRow{Part: record.Crowd, Round: n + 1, Crowds: map[string]record.CrowdSide{}}
		for i := range names {
			name := names[(n+i)%len(names)]
			if row.Crowds[name], err = c.gather(ctx, name, fmt.Sprintf("cold-%s-%d", name, n)); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
		s := row.Crowds
		b.logf("key %d: origin calls and ms: sidecar %d, %.0f; apps %d, %.0f; groupcache %d, %.0f", row.Round, s[record.Sidecar].Calls, s[record.Sidecar].AllMS,
			s[record.Apps].Calls, s[record.Apps].AllMS, s[record.Groupcache].Calls, s[record.Groupcache].AllMS)
		rows = append(rows, row)
	}
	for n := range p.Hastes {
		row := record.LoadsRow{Part: record.Hasty, Round: n + 1}
		if row.LeftMS, err = c.haste(ctx, n); err != nil {
			return nil, err
		}
		b.logf("%d ms for a load of %d: answered after %.1f ms by the sidecar, %.1f by groupcache", p.Haste, p.Takes, row.LeftMS[record.Sidecar], row.LeftMS[record.Groupcache])
		rows = append(rows, row)
	}
	return rows, nil
}

// crowd is the apps, and the servers that they ask.
type crowd struct {
	p       record.LoadsParameters
	origin  *peers.Origin
	cluster *peers.Cluster
	nodes   []*peers.Member
	apps    map[string][]*app // by namespace; the apps of one host are adjacent
}

// dial connects the apps of each namespace to each host.
func (c *crowd) dial() error {
	for _, space := range []string{loadedSpace, appsSpace} {
		for _, h := range c.cluster.Hosts() {
			for range c.p.Conns {
				a, err := dialApp(h.Server, space)
				if err != nil {
					return err
				}
				c.apps[space] = append(c.apps[space], a)
			}
		}
	}
	return nil
}

func (c *crowd) close() {
	for _, list := range c.apps {
		for _, a := range list {
			a.close()
		}
	}
}

// startCrowd starts as many nodes of groupcache as there are sidecars.
func (b *Bench) startCrowd(ctx context.Context, p record.LoadsParameters, o peers.Options, origin *peers.Origin) (nodes []*peers.Member, stop func(), err error) {
	stop = func() {
		for _, m := range nodes {
			m.Close()
		}
	}
	var all []string
	for range p.Hosts {
		address, err := peers.FreeAddress()
		if err != nil {
			return nil, nil, err
		}
		all = append(all, address)
	}
	for _, self := range all {
		m, err := peers.StartMember(ctx, record.Groupcache, peers.MemberOptions{Options: o, Self: self, All: all, Origin: origin.URL()})
		if err != nil {
			stop()
			return nil, nil, err
		}
		b.versions["groupcache-go"] = m.Version
		nodes = append(nodes, m)
	}
	return nodes, stop, nil
}

// gather makes all apps of a side ask for one key.
func (c *crowd) gather(ctx context.Context, name, key string) (side record.CrowdSide, err error) {
	var g errgroup.Group
	begun := time.Now()
	var told []asked
	switch name {
	case record.Groupcache:
		told = make([]asked, len(c.nodes))
		for i, m := range c.nodes {
			g.Go(func() error {
				a, err := m.Crowd(member.CrowdOrder{Key: key, Callers: c.p.Conns * c.p.Depth})
				told[i] = asked{answered: a.Answered, others: a.Errors}
				return err
			})
		}
	default:
		space, load := loadedSpace, (func() ([]byte, error))(nil)
		if name == record.Apps {
			space, load = appsSpace, func() ([]byte, error) { return c.fetch(ctx, key) }
		}
		told = make([]asked, len(c.apps[space]))
		for i, a := range c.apps[space] {
			g.Go(func() (err error) {
				told[i], err = a.ask(ctx, key, c.p.Depth, load)
				return err
			})
		}
	}
	err = g.Wait()
	side.AllMS = float64(time.Since(begun)) / float64(time.Millisecond)
	side.Calls = c.origin.Calls(key)
	for _, t := range told {
		side.Answered += t.answered
		side.Others += t.others
		if t.others > 0 {
			side.Status = t.status.String()
		}
	}
	return side, err
}

// fetch loads a key as an app does.
func (c *crowd) fetch(ctx context.Context, key string) ([]byte, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.Replace(c.origin.URL(), "{key}", key, 1), nil)
	if err != nil {
		return nil, err
	}
	r, err := http.DefaultClient.Do(q)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	return io.ReadAll(r.Body)
}

// haste makes one request for a key, and then another one with less time than the load
// takes. It returns after how many ms the second request was answered. On a busy machine
// that may come so late that the load has ended: then it tries another key.
func (c *crowd) haste(ctx context.Context, n int) (map[string]float64, error) {
	left := map[string]float64{}
	within := time.Duration(c.p.Haste) * time.Millisecond
	for try := 1; ; try++ {
		t, took, err := c.late(ctx, within, fmt.Sprintf("haste-%d-%d", n, try))
		if err != nil {
			return nil, err
		}
		left[record.Sidecar] = float64(took) / float64(time.Millisecond)
		// The owner answers TIMEOUT. A host that does not hear from the owner in time answers
		// MISS.
		if t.answered == 0 {
			break
		}
		if try == 5 {
			return nil, fmt.Errorf("one with %v was given a load of %d ms", within, c.p.Takes)
		}
	}
	a, err := c.nodes[0].Crowd(member.CrowdOrder{Key: fmt.Sprintf("haste-%d-groupcache", n), Callers: 1, Haste: within})
	left[record.Groupcache] = float64(a.Left) / float64(time.Millisecond)
	return left, err
}

// late makes a request for a key, and another one while it is loaded. It returns what the
// other got, and after which time.
func (c *crowd) late(ctx context.Context, within time.Duration, key string) (asked, time.Duration, error) {
	first, second := c.apps[loadedSpace][0], c.apps[loadedSpace][min(1, c.p.Conns-1)]
	var g errgroup.Group
	g.Go(func() error {
		t, err := first.ask(ctx, key, 1, nil)
		if err == nil && t.answered != 1 {
			err = fmt.Errorf("who began the load is answered %s", t.status)
		}
		return err
	})
	time.Sleep(member.HasteAfter)
	begun := time.Now()
	t, err := second.askIn(ctx, within, key, 1, nil)
	took := time.Since(begun)
	if err != nil {
		err = fmt.Errorf("one in haste: %w", err)
	}
	return t, took, errors.Join(g.Wait(), err)
}
