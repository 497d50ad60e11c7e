package quota

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Resource is one kind of place.
type Resource uint8

// The kinds, and their number.
const (
	LeaseTokens Resource = iota // of apps that load missing values themselves
	Watches                     // WATCHes that wait
	Waiting                     // requests that wait
	Namespaces                  // namespaces that are not configured
	Connections                 // on the socket
	Flushes                     // names whose flush is remembered
	Descriptors                 // of the shared memory, sent and not received
	Resources
)

// divisors bound one connection: it may have what is left to its tenant, divided by the number here, and
// no more than one descriptor. Namespaces belong to one app more than the other kinds do. Connections
// have no divisor.
var divisors = [Resources]int64{
	LeaseTokens: 16, Watches: 16, Waiting: 4, Namespaces: 1, Flushes: 1, Descriptors: 1 << 32,
}

var resourceNames = [Resources]string{
	"lease_tokens", "watches", "waiting", "namespaces", "connections", "flushes", "descriptors",
}

var resourceTexts = [Resources]string{
	LeaseTokens: "lease tokens: FILL or abandon some, or load the key without filling it",
	Watches:     "places to watch from: watch through fewer connections, or try again",
	Waiting:     "places of requests that wait for other hosts, loads or fills: try again",
	Namespaces: "names that max_namespaces leaves to those that are not configured: " +
		"use fewer names, or configure them",
	Flushes: "names of which a flush of the cluster is remembered: flush one of those that were flushed before, " +
		"or let an administrator flush all namespaces, which forgets them",
	Descriptors: "descriptors of the shared memory that may be on their way: receive them, or ask later",
	Connections: "connections of max_connections: close some, or raise it",
}

// Places are the bounded resources that all connections of a host use. A newcomer always finds some
// places. A tenant may have three quarters of the places that the other tenants leave, and seven
// eighths of the connections: see mayConnect. One connection may have a part of what its tenant has left.
// So a client gets less the more is taken, and the last places are for clients without any.
type Places struct {
	totals  [Resources]atomic.Int64
	used    [Resources]atomic.Int64
	refused [Resources]atomic.Int64

	mu      sync.Mutex
	tenants map[string]*tenant
}

// tenant is a user of this host, or another host.
type tenant struct {
	name    string
	clients atomic.Int64 // changes under the table's lock
	has     [Resources]atomic.Int64
}

// Client is one connection of a tenant. A nil Client is this process and takes places without bounds.
type Client struct {
	places *Places
	tenant *tenant
	has    [Resources]atomic.Int64

	// Administers is set before Acquire for an administrator of the sidecar, whose probes find a connection.
	Administers bool

	// SlotSearchFailedAt belongs to package namespaces: when it last found no namespace without
	// entries whose slot it could free for this client.
	SlotSearchFailedAt time.Time
}

// NewPlaces returns the given number of places of each kind.
func NewPlaces(totals [Resources]int64) *Places {
	s := &Places{tenants: map[string]*tenant{}}
	for r, n := range totals {
		s.SetTotal(Resource(r), n)
	}
	return s
}

// Total returns the number of places of a kind.
func (s *Places) Total(r Resource) int64 { return s.totals[r].Load() }

// SetTotal changes it. Places above it stay taken until they are given back.
func (s *Places) SetTotal(r Resource, n int64) { s.totals[r].Store(n) }

// Join returns a new client of a tenant. The client keeps its places until it releases
// them, also after Leave.
func (s *Places) Join(name string) *Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.tenants[name]
	if o == nil {
		o = &tenant{name: name}
		s.tenants[name] = o
	}
	o.clients.Add(1)
	return &Client{places: s, tenant: o}
}

// Tenant returns the name of the client's tenant; "" is this process.
func (m *Client) Tenant() string {
	if m == nil {
		return ""
	}
	return m.tenant.name
}

// Leave ends a client.
func (m *Client) Leave() {
	if m == nil {
		return
	}
	m.places.mu.Lock()
	m.tenant.clients.Add(-1)
	m.places.mu.Unlock()
	m.places.forget(m.tenant)
}

// forget drops a tenant that has neither clients nor places. Names and tokens outlive the
// connections that have brought them.
func (s *Places) forget(o *tenant) {
	if o.clients.Load() > 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.clients.Load() > 0 {
		return
	}
	for r := range Resources {
		if o.has[r].Load() != 0 {
			return
		}
	}
	if s.tenants[o.name] == o {
		delete(s.tenants, o.name)
	}
}

// add adds n to the counts of a resource, and returns the new counts of the table, of the
// tenant and of the client.
func (m *Client) add(r Resource, n int64) (used, byTenant, byClient int64) {
	if m == nil {
		return
	}
	return m.places.used[r].Add(n), m.tenant.has[r].Add(n), m.has[r].Add(n)
}

// Release gives a place back.
func (m *Client) Release(r Resource) {
	if m == nil {
		return
	}
	m.add(r, -1)
	m.places.forget(m.tenant)
}

// Acquire takes a place. The error names the tenant, its number of places, and the remedy.
func (m *Client) Acquire(r Resource) *wire.Error {
	if m == nil {
		return nil
	}
	used, byTenant, byClient := m.add(r, 1)
	s := m.places
	total := s.Total(r)
	may := total - (used - byTenant) // what the other tenants leave
	if r == Connections {
		may = m.mayConnect(total, used-1, byTenant-1)
	} else {
		may -= may / 4
	}
	if left := may - (byTenant - 1); used <= total && left > 0 && (byClient-1)*divisors[r] < left {
		return nil
	}
	m.Release(r)
	s.refused[r].Add(1)
	return wire.Errorf(wire.Busy, "%s holds %d and this connection %d of the %d %s",
		m.tenant.name, byTenant-1, byClient-1, total, resourceTexts[r])
}

// keptConnections is how many of the last connections administrators alone may take, and at most a sixteenth.
const keptConnections = 16

// mayConnect returns how many connections a tenant may have that has some of those used: seven eighths of
// what the others leave. But a connection mostly stays, so a few tenants would take all: of the last eighth a
// tenant may have only the part of what is free that the free ones are of all, or one.
func (m *Client) mayConnect(total, used, has int64) int64 {
	left, free := total-(used-has), total-used
	may := left - left/8
	switch {
	case m.Administers || free > total/8:
		return may
	case free <= min(keptConnections, total/16):
		return 0
	}
	return min(may, max(1, free*free/total))
}

// Force takes n places even if there are none left.
func (m *Client) Force(r Resource, n int64) { m.add(r, n) }

// Take takes a lease token. A token that is handed over from another client is taken even
// if no place is left. With Give it makes a Client a flight.Place.
func (m *Client) Take(handed bool) error {
	if handed {
		m.Force(LeaseTokens, 1)
		return nil
	}
	if err := m.Acquire(LeaseTokens); err != nil {
		return err
	}
	return nil
}

// Give gives a lease token back.
func (m *Client) Give() { m.Release(LeaseTokens) }

type clientKey struct{}

// WithClient returns a context that names the client on whose behalf it is used.
func WithClient(ctx context.Context, m *Client) context.Context {
	if m == nil {
		return ctx
	}
	return context.WithValue(ctx, clientKey{}, m)
}

// ClientOf returns the client that a context names, or nil.
func ClientOf(ctx context.Context) *Client {
	m, _ := ctx.Value(clientKey{}).(*Client)
	return m
}

// Used returns how many places of a kind are taken.
func (s *Places) Used(r Resource) int64 { return s.used[r].Load() }

// Stats returns, for each kind, the places taken and the tenant with most of them.
func (s *Places) Stats() []cachesidecar.ShareStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]cachesidecar.ShareStats, Resources)
	for r := range Resources {
		t := &list[r]
		*t = cachesidecar.ShareStats{
			Name: resourceNames[r], Used: s.used[r].Load(), Limit: s.Total(r), Refused: s.refused[r].Load(),
		}
		for name, o := range s.tenants {
			if n := o.has[r].Load(); n > t.MostBy {
				t.Most, t.MostBy = name, n
			}
		}
	}
	return list
}

// UserTenant returns the tenant name of a user of this host.
func UserTenant(uid int) string { return fmt.Sprint("uid ", uid) }
