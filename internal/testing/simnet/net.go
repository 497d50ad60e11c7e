package simnet

import (
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Bounds, close to those of a real system.
const (
	window     = 256 << 10 // bytes sent and not read, per connection and direction
	backlog    = 128       // connections that wait for Accept; further dials wait outside
	packets    = 1024      // datagrams that wait to be read; further ones are dropped
	retransmit = 200 * time.Millisecond
)

// Net is a network. It is safe for concurrent use.
type Net struct {
	mu       sync.Mutex // guards everything that belongs to the network
	rand     *rand.Rand
	hosts    map[string]*Host // the living process of each address
	machines map[string]bool  // addresses that were ever used
	streams  map[string]*listener
	udp      map[string]*transport
	port     int // the last port given out

	loss     float64
	min, max time.Duration
	cut      map[[2]string]bool // from, to
	isolated map[string]bool
	stopped  map[string]bool // addresses of stopped processes
	held     []*pipe         // pipes that wait for a link or a process
	waiting  []datagram      // datagrams that wait for a process
	changed  chan struct{}   // closed and replaced when a link may be whole again
}

// New returns a network without hosts or faults. Delays are 0.1 to 0.5 ms.
func New(seed uint64) *Net {
	return &Net{
		rand:  rand.New(rand.NewPCG(seed, seed)),
		hosts: map[string]*Host{}, machines: map[string]bool{},
		streams: map[string]*listener{}, udp: map[string]*transport{}, port: 32767,
		min: 100 * time.Microsecond, max: 500 * time.Microsecond,
		cut: map[[2]string]bool{}, isolated: map[string]bool{}, stopped: map[string]bool{},
		changed: make(chan struct{}),
	}
}

// Host returns the process at an IP address. It is the same Host until Kill.
func (n *Net) Host(ip string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[ip]
	if h == nil {
		if p := net.ParseIP(ip); p == nil || p.String() != ip {
			panic("simnet: " + strconv.Quote(ip) + " is no IP address as Go writes it")
		}
		h = &Host{net: n, ip: ip, killed: make(chan struct{})}
		n.hosts[ip], n.machines[ip] = h, true
		n.change()
	}
	return h
}

// change wakes every Dial that waits for a link. The caller holds the lock.
func (n *Net) change() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// Cut cuts the link between two hosts in both directions.
func (n *Net) Cut(a, b string) {
	n.CutOneWay(a, b)
	n.CutOneWay(b, a)
}

// CutOneWay blocks all traffic from one host to another. Existing connections carry data
// in the other direction only. New connections cannot be made.
func (n *Net) CutOneWay(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]string{from, to}] = true
}

// Isolate cuts a host off from all others.
func (n *Net) Isolate(ip string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.isolated[ip] = true
}

// Heal makes all links whole again.
func (n *Net) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
	clear(n.isolated)
	for _, p := range n.held {
		p.timer = time.AfterFunc(n.delay(), p.deliver)
	}
	n.held = nil
	n.change()
}

// SetLoss sets the probability that a datagram is lost. Streams lose nothing; their bytes
// arrive later.
func (n *Net) SetLoss(p float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss = p
}

// SetDelay sets the range of a packet's travel time.
func (n *Net) SetDelay(min, max time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.min, n.max = min, max
}

// delay draws a random delay. The caller holds the lock.
func (n *Net) delay() time.Duration {
	if n.max <= n.min {
		return n.min
	}
	return n.min + time.Duration(n.rand.Int64N(int64(n.max-n.min)))
}

// streamDelay draws the delay of a segment, which is retransmitted until it arrives. What a
// host sends to itself arrives at once.
func (n *Net) streamDelay(from, to string) time.Duration {
	if from == to {
		return 0
	}
	d := n.delay()
	for again := retransmit; n.lost() && again < time.Minute; again *= 2 {
		d += again
	}
	return d
}

func (n *Net) lost() bool { return n.loss > 0 && n.rand.Float64() < n.loss }

// isCut reports whether traffic is blocked. The caller holds the lock.
func (n *Net) isCut(from, to string) bool {
	return from != to && (n.cut[[2]string{from, to}] || n.isolated[from] || n.isolated[to])
}

// freePort returns an unused port. The caller holds the lock.
func (n *Net) freePort() int {
	n.port++
	return n.port
}

// Host is a process at an address. It is safe for concurrent use.
type Host struct {
	net    *Net
	ip     string
	killed chan struct{}

	// The network's lock guards the fields below.
	dead       bool
	listeners  []*listener
	transports []*transport
	conns      []*conn
}

// IP returns the host's address.
func (h *Host) IP() string { return h.ip }

// Kill ends the process as kill -9 does; its machine stays up. Listeners close, the peers
// of its connections read the end, and new dials are refused. This Host can do nothing
// any more; Net.Host returns its successor.
func (h *Host) Kill() {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if h.dead {
		return
	}
	h.dead = true
	n.run(h.ip, 1) // deliver what waits: it belongs to the machine
	close(h.killed)
	delete(n.hosts, h.ip)
	for _, t := range slices.Clone(h.transports) {
		t.close()
	}
	for _, l := range slices.Clone(h.listeners) {
		l.close()
	}
	for _, c := range slices.Clone(h.conns) {
		c.close()
	}
}

func address(ip string, port int) string { return net.JoinHostPort(ip, strconv.Itoa(port)) }

func remove[T comparable](list []T, x T) []T {
	if i := slices.Index(list, x); i >= 0 {
		return slices.Delete(list, i, i+1)
	}
	return list
}
