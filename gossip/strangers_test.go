package gossip

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	gt "github.com/cachesidecar/cachesidecar/internal/testing/gossiptest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestOtherCluster: nodes of two clusters never see each other, whichever node joins
// the other.
func TestOtherCluster(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		c.startAll(2)
		other := c.start(5, func(cfg *Config) { cfg.Cluster = "prod" })
		none := c.start(6, func(cfg *Config) { cfg.Cluster = "" })
		time.Sleep(2 * time.Minute)
		for _, n := range c.nodes {
			want := 2
			if n == other || n == none {
				want = 1
			}
			if got := n.count(); got != want || len(n.Members()) != want-1 {
				t.Errorf("%s sees %d nodes, want %d: %+v", n.name, got, want, n.Members())
			}
		}
		if got := c.nodes[0].Stats().Garbage; got == 0 {
			t.Error("what the strangers sent was not counted")
		}
	})
}

// TestForeignNodes: memberlist nodes of other programs use the right cluster name.
func TestForeignNodes(t *testing.T) {
	for _, tc := range []struct {
		name string
		meta []byte
	}{
		{"no meta", nil},
		{"text", []byte("role=web,dc=east")},
		{"too few fields", []byte{0x92, 0xa0, 0x01}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *cluster) {
				c.startAll(3)
				conf := memberlist.DefaultLANConfig()
				conf.Name, conf.Label, conf.EnableCompression = "stranger", "test", false
				conf.Transport = c.Host(ipOf(9)).Transport(port)
				conf.Logger = log.New(io.Discard, "", 0)
				conf.Delegate = foreign{tc.meta}
				list, err := memberlist.Create(conf)
				testenv.Must(t, err)
				if _, err := list.Join([]string{addressOf(0)}); err != nil {
					t.Fatal(err)
				}
				before := c.nodes[0].Stats().Garbage
				if before == 0 {
					t.Error("it was not counted")
				}
				c.stays("with a stranger", 30*time.Second)
				for _, n := range c.nodes {
					if m := n.member("stranger"); m != nil {
						t.Errorf("%s knows %+v", n.name, m)
					}
				}
				if err := list.Shutdown(); err != nil {
					t.Error(err)
				}
				time.Sleep(10 * time.Second)
			})
		})
	}
}

// foreign is another program's delegate.
type foreign struct{ meta []byte }

func (f foreign) NodeMeta(int) []byte           { return f.meta }
func (foreign) NotifyMsg([]byte)                {}
func (foreign) GetBroadcasts(int, int) [][]byte { return nil }
func (foreign) LocalState(bool) []byte          { return nil }
func (foreign) MergeRemoteState([]byte, bool)   {}

// TestGarbage: datagrams and streams of unknown senders.
func TestGarbage(t *testing.T) {
	label, err := memberlist.AddLabelHeaderToPacket(nil, "test")
	testenv.Must(t, err)
	random := make([]byte, 1000)
	_, _ = rand.Read(random)
	messages := [][]byte{
		{}, {0}, {0xff}, []byte("GET / HTTP/1.1\r\n\r\n"), random, label[:1], label[:3],
	}
	for kind := range 16 { // memberlist's message types, cut or followed by nonsense
		for _, tail := range []string{"", "\xc1", "\xff\xff\xff\xff", "\xdf\xff\xff\xff\xff", "\xc6\xff\xff\xff\xff", "\x86\xa4Addr\xc0", string(random[:500])} {
			messages = append(messages, append(append([]byte(nil), label...), append([]byte{byte(kind)}, tail...)...))
		}
	}
	inBubble(t, func(t *testing.T, c *cluster) {
		c.startAll(3)
		h := c.Host(ipOf(9))
		tr := h.Transport(port)
		for _, m := range messages {
			if _, err := tr.WriteTo(m, addressOf(0)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		packets := c.nodes[0].Stats().Garbage
		if packets < int64(len(messages)/2) {
			t.Errorf("%d of %d packets were counted", packets, len(messages))
		}
		var conns []net.Conn
		for _, m := range messages {
			nc, err := h.Dial(t.Context(), addressOf(0))
			testenv.Must(t, err)
			_, _ = nc.Write(m)
			conns = append(conns, nc) // left open
		}
		c.stays("after garbage", 10*time.Second)
		if got := c.nodes[0].Stats().Garbage - packets; got < int64(len(messages)/2) {
			t.Errorf("%d of %d streams were counted", got, len(messages))
		}
		for i, nc := range conns {
			_ = nc.SetDeadline(time.Now().Add(time.Second))
			if _, err := io.Copy(io.Discard, nc); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%q: the stream is still open: %v", messages[i], err)
			}
			_ = nc.Close()
		}
		if !c.whole() {
			t.Error("somebody is missing")
		}
		if lines := strings.Count(c.nodes[0].log.String(), "\n"); lines > 100 {
			t.Errorf("%d lines of log", lines)
		}
	})
}

// TestMembersAreBounded: members that have been gone longest are forgotten, and
// additional living ones are refused.
func TestMembersAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		n := c.start(0)
		d := delegate{n.Gossip}
		meta, err := (&Meta{}).encode()
		testenv.Must(t, err)
		one := func(i int) *memberlist.Node {
			return &memberlist.Node{Name: addressOf(i), Addr: net.ParseIP(ipOf(i)).To4(), Port: port, Meta: meta, PMin: 1, PMax: 5, PCur: 2}
		}
		for i := range maxMembers + 10 {
			x := one(i)
			testenv.Must(t, d.NotifyAlive(x))
			d.NotifyJoin(x)
			d.NotifyLeave(x)
			time.Sleep(time.Millisecond)
		}
		if got := len(n.Members()); got != maxMembers {
			t.Errorf("%d members, want %d", got, maxMembers)
		}
		if n.member(addressOf(9)) != nil || n.member(addressOf(10)) == nil {
			t.Error("not those that were gone for longest were forgotten")
		}
		for i := range maxMembers {
			x := one(10000 + i)
			testenv.Must(t, d.NotifyAlive(x))
			d.NotifyJoin(x)
		}
		if got := n.count(); got != 1+maxMembers {
			t.Errorf("%d live, want %d", got, 1+maxMembers)
		}
		if err := d.NotifyAlive(one(20000)); err == nil {
			t.Error("one living member too many was taken")
		}
		if err := d.NotifyAlive(one(10000)); err != nil {
			t.Errorf("one that is known: %v", err)
		}
		if got := len(n.Members()); got != maxMembers {
			t.Errorf("%d members, want %d", got, maxMembers)
		}
		x := one(10001)
		x.Addr = nil
		if err := d.NotifyAlive(x); err == nil {
			t.Error("one without an address was taken")
		}
		for i := range maxMembers { // they were never there
			d.NotifyLeave(one(10000 + i))
		}
	})
}

// TestUnmetAreKeptApart: memberlist never hears of processes that do not count. They are
// not probed and not passed on. A process that counts later is a member after an exchange.
// A name keeps its process, even if another one of that name is told of.
func TestUnmetAreKeptApart(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		var mu sync.Mutex
		met := map[string]uint64{"n0": 1, "n1": 1, "n2": 1}
		for i := range 4 {
			c.start(i, func(cfg *Config) {
				cfg.Known = func(m Member) bool {
					mu.Lock()
					defer mu.Unlock()
					return met[m.Node] == m.Meta.Epoch
				}
			})
		}
		three := func() bool {
			for _, n := range c.nodes[:3] {
				if n.count() != 3 || n.list.NumMembers() != 3 {
					return false
				}
			}
			return true
		}
		c.until("those that were met find each other", 2*time.Second, three)
		tr := c.Host(ipOf(200)).Transport(0)
		for i := range uint32(1000) {
			for name, epoch := range map[string]uint64{fmt.Sprint("fake", i): 1, "n1": 99} {
				meta := gt.Meta(ipOf(1)+":7947", epoch, 1<<32-1, true, 1<<63)
				_, _ = tr.WriteTo(gt.Labelled("test", gt.Alive(name, net.ParseIP(ipOf(1)), port, 100+i, meta)), addressOf(0))
			}
			time.Sleep(time.Millisecond)
			if m := c.nodes[0].member("n1"); m == nil || !m.Alive || m.Meta.Epoch != 1 || m.Meta.Weight != 100 {
				t.Fatalf("after %d: %+v", i, m)
			}
		}
		_ = tr.Shutdown()
		if !three() {
			t.Error("some of those that were not met are members")
		}
		mu.Lock()
		met["n3"] = 1
		mu.Unlock()
		if err := c.nodes[0].Exchange(addressOf(3)); err != nil {
			t.Error(err)
		}
		c.until("the one that was met is a member", pushPull, c.all("n3", aliveAs(1)))
	})
}
