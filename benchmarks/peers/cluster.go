package peers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/load"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Place describes one sidecar of a cluster.
type Place struct {
	Node  string
	Bind  string // of gossip; other sidecars send requests to the next port
	Join  []string
	Bound time.Duration // max_staleness; zero: the default
	// Advertise is the IP address at which other sidecars find it; empty: Bind's.
	Advertise string
}

// address returns the address at which other sidecars find it.
func (p *Place) address() string {
	if p.Advertise == "" {
		return p.Bind
	}
	_, port, _ := net.SplitHostPort(p.Bind)
	return net.JoinHostPort(p.Advertise, port)
}

// next returns the address with the next port.
func next(address string) string {
	host, port, _ := net.SplitHostPort(address)
	n, _ := strconv.Atoi(port)
	return net.JoinHostPort(host, strconv.Itoa(n+1))
}

// flags returns the flags of the sidecar's command.
func (p *Place) flags() []string {
	if p == nil {
		return nil
	}
	f := []string{"--node", p.Node, "--bind", p.Bind, "--join", strings.Join(p.Join, ",")}
	if p.Bound > 0 {
		f = append(f, "--max-staleness", p.Bound.String())
	}
	if p.Advertise != "" {
		f = append(f, "--advertise", p.Advertise)
	}
	return f
}

// Cluster is several sidecars that form one cache.
type Cluster struct {
	o     Options
	bound time.Duration
	hosts []*Host
}

// Host is one sidecar of a Cluster. Only App may be called concurrently; the other
// methods belong to one goroutine.
type Host struct {
	*Server
	o   Options
	app atomic.Pointer[client.Client] // nil while the host is down
}

// StartCluster starts hosts sidecars at once, and returns when they agree.
func StartCluster(ctx context.Context, hosts int, bound time.Duration, o Options) (*Cluster, error) {
	c, err := places(hosts, bound, o)
	if err != nil {
		return nil, err
	}
	return c, c.start(ctx)
}

// StartLinked is StartCluster with a Link that carries all traffic between the hosts. The
// caller closes the link after the cluster has stopped.
func StartLinked(ctx context.Context, hosts int, bound time.Duration, o Options) (*Cluster, *Link, error) {
	c, err := places(hosts, bound, o)
	if err != nil {
		return nil, nil, err
	}
	l, err := c.linked()
	if err != nil {
		return nil, nil, err
	}
	if err := c.start(ctx); err != nil {
		l.Close()
		return nil, nil, err
	}
	return c, l, nil
}

// places makes places for so many hosts.
func places(hosts int, bound time.Duration, o Options) (*Cluster, error) {
	c := &Cluster{o: o, bound: bound}
	for range hosts {
		if _, err := c.Place(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// start starts all hosts. If they do not agree, it stops them again.
func (c *Cluster) start(ctx context.Context) error {
	for _, h := range c.hosts {
		if err := h.Start(ctx); err != nil {
			c.Stop()
			return err
		}
	}
	if err := c.Agreed(ctx); err != nil {
		c.Stop()
		return err
	}
	return nil
}

// Place adds a place for one more host. It does not start the process.
func (c *Cluster) Place() (*Host, error) {
	address, err := testenv.FindAddress()
	if err != nil {
		return nil, err
	}
	h := &Host{o: c.o}
	h.o.Place = &Place{Node: fmt.Sprintf("host-%d", len(c.hosts)+1), Bind: address, Bound: c.bound}
	h.o.Label = c.o.Label + "-" + h.o.Place.Node
	c.hosts = append(c.hosts, h)
	c.introduce()
	return h, nil
}

// introduce gives all hosts the same addresses to join, as the manual says.
func (c *Cluster) introduce() {
	var join []string
	for _, h := range c.hosts[:min(3, len(c.hosts))] {
		join = append(join, h.o.Place.address())
	}
	for _, h := range c.hosts {
		h.o.Place.Join = join
	}
}

// Hosts returns all places.
func (c *Cluster) Hosts() []*Host { return c.hosts }

// Stop ends all hosts at once.
func (c *Cluster) Stop() {
	var wg sync.WaitGroup
	for _, h := range c.running() {
		wg.Go(h.Stop)
	}
	wg.Wait()
}

// running returns the hosts that are up.
func (c *Cluster) running() []*Host {
	return slices.DeleteFunc(slices.Clone(c.hosts), func(h *Host) bool { return h.App() == nil })
}

// Node returns the host's name.
func (h *Host) Node() string { return h.o.Place.Node }

// Bind returns the host's address.
func (h *Host) Bind() string { return h.o.Place.Bind }

// App returns the Go client of the host's apps, or nil while the host is down.
func (h *Host) App() *client.Client { return h.app.Load() }

// Start starts the host's process, and returns once it serves.
func (h *Host) Start(ctx context.Context) error {
	s, err := Start(ctx, record.Sidecar, h.o)
	if err != nil {
		return err
	}
	app, err := client.Dial(ctx, client.Config{Socket: s.Socket, Name: "bench", DialTimeout: 10 * time.Second})
	if err != nil {
		s.Stop()
		return err
	}
	h.Server = s
	h.app.Store(app)
	return nil
}

// Stop withdraws App, asks the process to end, and waits until it has.
func (h *Host) Stop() { h.end(h.Server.Stop) }

// Kill ends the process as kill -9 does.
func (h *Host) Kill() { h.end(h.Server.Kill) }

func (h *Host) end(how func()) {
	app := h.app.Swap(nil)
	how()
	_ = app.Close()
}

// agreeTime is how long hosts may take to agree.
const agreeTime = time.Minute

// Agreed waits until the running hosts are one cache. Each of them sees all of them as
// members, and no other host; together they own every partition; and no handoff is under
// way.
func (c *Cluster) Agreed(ctx context.Context) error {
	return agree(ctx, func() error { return c.agreed(ctx) })
}

// agree calls ask until the hosts agree.
func agree(ctx context.Context, ask func() error) (err error) {
	for end := time.Now().Add(agreeTime); time.Now().Before(end); {
		if err = ask(); err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("the hosts are not one after %v: %w", agreeTime, err)
}

func (c *Cluster) agreed(ctx context.Context) error {
	up, held := c.running(), 0
	for _, h := range up {
		members, err := h.App().Members(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", h.Node(), err)
		}
		in := 0
		for _, m := range members {
			if m.State == "in" && m.Partitions > 0 {
				in++
			}
		}
		if in != len(up) {
			return fmt.Errorf("%s has %d of %d hosts in", h.Node(), in, len(up))
		}
		st, err := h.App().Stats(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", h.Node(), err)
		}
		if o := st.Cluster.Handoff; o.Pulling > 0 || o.OpenOffers > 0 {
			return fmt.Errorf("%s hands over", h.Node())
		}
		held += st.Cluster.Owned
	}
	if held != kv.Partitions {
		return fmt.Errorf("%d of %d partitions are held", held, kv.Partitions)
	}
	return nil
}

// Owners returns the numbers of the first n keys by the name of their owner, as RING
// reports them. It waits until the host knows the assigned owner of each key as its
// owner: it may learn of that later than the owner, and forgets it while it does not hear
// from the owner.
func (c *Cluster) Owners(ctx context.Context, h *Host, n int) (owners map[string][]uint64, err error) {
	err = agree(ctx, func() (err error) {
		owners, err = c.owners(ctx, h, n)
		return err
	})
	return owners, err
}

func (c *Cluster) owners(ctx context.Context, h *Host, n int) (map[string][]uint64, error) {
	const atOnce = 32
	places := make([]cachesidecar.Place, n)
	errs := make([]error, atOnce)
	var wg sync.WaitGroup
	for w := range atOnce {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil; i += atOnce {
				places[i], errs[w] = h.App().Ring(ctx, string(load.Key(nil, uint64(i), c.o.KeySize)))
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("who owns the keys: %w", err)
	}
	owners := map[string][]uint64{}
	for i, p := range places {
		if p.Owner != p.AssignedOwner {
			return nil, fmt.Errorf("key %d is %s's and held by %q", i, p.AssignedOwner, p.Owner)
		}
		owners[p.Owner] = append(owners[p.Owner], uint64(i))
	}
	return owners, nil
}

// Fresh makes GETs of the sidecar's protocol that the owner answers, never a copy.
type Fresh struct{ load.Sidecar }

// Append appends a GET.
func (p Fresh) Append(dst []byte, i int, key uint64) []byte {
	return wire.AppendRequest(dst, &wire.Request{
		// The ids are those of package load.
		ID: 1<<20 + uint64(i), Op: wire.OpGet, Key: load.Key(nil, key, p.KeySize), TTLMS: wire.TTLDefault, Options: wire.Fresh,
	})
}
