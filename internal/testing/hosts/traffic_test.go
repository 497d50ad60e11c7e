package hosts

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// The traffic between sidecars in virtual time. The benchmarks keep what TestVirtualTraffic
// prints.

var (
	trafficNodes = flag.String("traffic.nodes", "3", "numbers of nodes, between commas")
	trafficRates = flag.String("traffic.rates", "1000", "writes a second in all, between commas")
	trafficFor   = flag.Duration("traffic.for", 500*time.Millisecond, "how long each is counted, in virtual time")
)

// traffic has the counts of all nodes.
type traffic struct {
	follows, polls                  atomic.Int64 // answers
	followed, polled, other, gossip atomic.Int64 // bytes
}

// counted is a connection that one node has made to another node. It counts frames by
// their op.
type counted struct {
	net.Conn
	t *traffic

	mu      sync.Mutex
	out, in []byte // of incomplete frames
	ops     map[uint64]wire.Op
}

func (c *counted) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.out = append(c.out, b...)
	c.out = c.frames(c.out, func(frame []byte, size int64) {
		id, _ := wire.PeekID(frame)
		var q wire.Request
		op := wire.Op(0)
		if wire.DecodeRequest(frame, &q) == nil {
			op = q.Op
		}
		c.ops[id] = op
		c.count(op, size, false)
	})
	c.mu.Unlock()
	return c.Conn.Write(b)
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in = append(c.in, b[:n]...)
	c.in = c.frames(c.in, func(frame []byte, size int64) {
		id, _ := wire.PeekID(frame)
		c.count(c.ops[id], size, true)
		delete(c.ops, id)
	})
	return n, err
}

// frames passes each complete frame at the front of b to each, and returns the rest.
func (c *counted) frames(b []byte, each func(frame []byte, size int64)) []byte {
	for len(b) >= wire.LengthSize {
		end := wire.LengthSize + wire.FrameLength(b)
		if len(b) < end {
			break
		}
		each(b[wire.LengthSize:end], int64(end))
		b = b[end:]
	}
	return slices.Clone(b)
}

func (c *counted) count(op wire.Op, size int64, answer bool) {
	switch op {
	case wire.OpFollow:
		c.t.followed.Add(size)
		if answer {
			c.t.follows.Add(1)
		}
	case wire.OpPoll:
		c.t.polled.Add(size)
		if answer {
			c.t.polls.Add(1)
		}
	default:
		c.t.other.Add(size)
	}
}

// gossiped counts the bytes of gossip.
type gossiped struct {
	memberlist.Transport
	t *traffic
}

func (g gossiped) WriteTo(b []byte, to string) (time.Time, error) {
	g.t.gossip.Add(int64(len(b)))
	return g.Transport.WriteTo(b, to)
}

func (g gossiped) DialTimeout(to string, d time.Duration) (net.Conn, error) {
	nc, err := g.Transport.DialTimeout(to, d)
	if err != nil {
		return nil, err
	}
	return gossipedConn{nc, g.t}, nil
}

type gossipedConn struct {
	net.Conn
	t *traffic
}

func (c gossipedConn) Write(b []byte) (int, error) {
	c.t.gossip.Add(int64(len(b)))
	return c.Conn.Write(b)
}

func (c gossipedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.t.gossip.Add(int64(n))
	return n, err
}

// trafficPoint is a line of TestVirtualTraffic. Bytes and counts are per node and second.
type trafficPoint struct {
	Nodes    int     `json:"nodes"`
	Rate     int     `json:"rate"` // writes, over all nodes
	Applied  float64 `json:"applied"`
	Follows  float64 `json:"follows"` // answers
	Followed float64 `json:"followed_bytes"`
	Polls    float64 `json:"polls"`
	Polled   float64 `json:"polled_bytes"`
	Gossip   float64 `json:"gossip_bytes"`
	Other    float64 `json:"other_bytes"`
	P50US    float64 `json:"p50_us"` // until no copy elsewhere is served
	P99US    float64 `json:"p99_us"`
	StartMS  int64   `json:"start_ms"` // from the start until every partition is owned
	JoinMS   int64   `json:"join_ms"`  // from one more until it owns its share
}

// TestVirtualTraffic prints a line of JSON for each number of nodes and each rate.
func TestVirtualTraffic(t *testing.T) {
	for _, n := range numbers(t, *trafficNodes) {
		bubble.Test(t, func(t *testing.T) {
			var count traffic
			w := newWorld(t, 1, n+1)
			for _, v := range w.nodes {
				v.dials = func(ctx context.Context, address string) (net.Conn, error) {
					nc, err := v.host.Dial(ctx, address)
					if err != nil {
						return nil, err
					}
					return &counted{Conn: nc, t: &count, ops: map[uint64]wire.Op{}}, nil
				}
				v.gossips = func(g memberlist.Transport) memberlist.Transport { return gossiped{g, &count} }
			}
			late := w.nodes[n]
			w.nodes = w.nodes[:n]
			began := time.Now()
			w.startAll()
			w.agreed(120 * time.Second)
			point := trafficPoint{Nodes: n, StartMS: time.Since(began).Milliseconds()}
			time.Sleep(5 * time.Second) // until the handoffs are over
			var lines []trafficPoint
			for _, rate := range numbers(t, *trafficRates) {
				point.Rate = rate
				lines = append(lines, w.traffic(&count, point))
			}
			w.nodes = append(w.nodes, late)
			began = time.Now()
			late.start()
			for late.s.engine.Node.Stats().Owned == 0 {
				if time.Since(began) > time.Minute {
					t.Fatal("one more node holds nothing after a minute")
				}
				time.Sleep(20 * time.Millisecond)
			}
			w.agreed(time.Minute)
			for _, p := range lines {
				p.JoinMS = time.Since(began).Milliseconds()
				b, err := json.Marshal(p)
				testenv.Must(t, err)
				fmt.Printf("traffic %s\n", b)
			}
			w.killAll()
		})
	}
}

func numbers(t *testing.T, list string) (n []int) {
	for _, s := range strings.Split(list, ",") {
		v, err := strconv.Atoi(s)
		testenv.Must(t, err)
		n = append(n, v)
	}
	return n
}

// keysOf returns some keys that a node owns.
func (v *vnode) keysOf(n int) (keys [][]byte) {
	return keysOf(keysIn(v.s, DefaultNamespace, v.name+"-", true, n)...)
}

// traffic counts while every node writes keys of its own at its share of a rate, and one
// key is read through other nodes.
func (w *world) traffic(count *traffic, p trafficPoint) trafficPoint {
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	if p.Rate > 0 {
		for i, v := range w.nodes {
			keys := v.keysOf(64)
			rnd := rand.New(rand.NewPCG(w.seed, uint64(i)))
			wg.Go(func() {
				for {
					pauseFor(ctx, time.Duration(rnd.ExpFloat64()*float64(w.nodeEvery(p.Rate))))
					if ctx.Err() != nil {
						return
					}
					if _, err := v.s.Set(context.Background(), "default", string(keys[rnd.IntN(len(keys))]), []byte("value"), cachesidecar.SetOptions{}); err != nil {
						w.fail("a write through %s: %v", v.name, err)
						return
					}
				}
			})
		}
	}
	time.Sleep(500 * time.Millisecond)
	before := [...]int64{count.follows.Load(), count.followed.Load(), count.polls.Load(), count.polled.Load(), count.gossip.Load(), count.other.Load(), w.applied()}
	began := time.Now()
	delays := w.watched(*trafficFor)
	seconds := time.Since(began).Seconds()
	per := func(now, before int64) float64 { return float64(now-before) / seconds / float64(len(w.nodes)) }
	p.Follows, p.Followed = per(count.follows.Load(), before[0]), per(count.followed.Load(), before[1])
	p.Polls, p.Polled = per(count.polls.Load(), before[2]), per(count.polled.Load(), before[3])
	p.Gossip, p.Other, p.Applied = per(count.gossip.Load(), before[4]), per(count.other.Load(), before[5]), per(w.applied(), before[6])
	stop()
	wg.Wait()
	if n := float64(len(w.nodes)); p.Applied < 0.8*float64(p.Rate)*(n-1)/n || p.Follows == 0 || p.Gossip == 0 {
		w.fail("too little is counted of %d writes a second: %+v", p.Rate, p)
	}
	slices.Sort(delays)
	if len(delays) == 0 {
		w.fail("nothing was seen of any write")
		return p
	}
	us := func(q float64) float64 {
		return float64(delays[min(len(delays)-1, int(q*float64(len(delays))))]) / float64(time.Microsecond)
	}
	p.P50US, p.P99US = us(0.5), us(0.99)
	return p
}

// nodeEvery returns the mean time between two writes of a node.
func (w *world) nodeEvery(rate int) time.Duration {
	return time.Duration(len(w.nodes)) * time.Second / time.Duration(rate)
}

func (w *world) applied() (n int64) {
	for _, v := range w.nodes {
		n += v.s.telemetry.ClusterState().Invalidations.Applied
	}
	return n
}

// watched overwrites a key of the first node for some time. It returns how long it takes
// until other nodes do not serve their copies of it any more.
func (w *world) watched(d time.Duration) (delays []time.Duration) {
	const watchers = 20
	owner := w.nodes[0]
	key := owner.keysOf(65)[64]
	var mu sync.Mutex
	n := uint64(0)
	get := func(v *vnode) uint64 {
		got, err := v.s.Get(context.Background(), "default", string(key), cachesidecar.GetOptions{})
		if err != nil {
			w.fail("a read through %s: %v", v.name, err)
			return n
		}
		return binary.BigEndian.Uint64(got.Value)
	}
	set := func() {
		n++
		if _, err := owner.s.Set(context.Background(), "default", string(key), binary.BigEndian.AppendUint64(nil, n), cachesidecar.SetOptions{}); err != nil {
			w.fail("a write: %v", err)
		}
	}
	set()
	for began := time.Now(); time.Since(began) < d; time.Sleep(10 * time.Millisecond) {
		for _, v := range w.nodes[1:min(len(w.nodes), 1+watchers)] {
			get(v)
		}
		time.Sleep(5 * time.Millisecond) // until the copies are in place
		set()
		answered := time.Now()
		var wg sync.WaitGroup
		for _, v := range w.nodes[1:min(len(w.nodes), 1+watchers)] {
			wg.Go(func() {
				for {
					asked := time.Since(answered)
					if get(v) >= n || asked > w.bound {
						if asked > w.bound {
							w.fail("%s still serves what was overwritten %v before", v.name, asked)
						}
						mu.Lock()
						delays = append(delays, asked)
						mu.Unlock()
						return
					}
					time.Sleep(50 * time.Microsecond)
				}
			})
		}
		wg.Wait()
	}
	return delays
}
