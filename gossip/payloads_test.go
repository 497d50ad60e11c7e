package gossip

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// packet is the most bytes that memberlist asks for.
const packet = 1396

func TestPayloadQueue(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := newPayloads()
		if got := d.takePayloads(3, packet); got != nil {
			t.Errorf("out of nothing came %q", got)
		}
		b := []byte("first")
		d.add(5, b, 10)
		b[0] = 'x' // the caller may change it again
		d.add(0, []byte("second"), 10)
		for i := range copies(10) {
			got := d.takePayloads(3, packet)
			if len(got) != 2 || string(got[0]) != "\x00second" || string(got[1]) != "\x05first" {
				t.Fatalf("copy %d: %q, want the newest first", i, got)
			}
		}
		if got := d.takePayloads(3, packet); len(got) != 0 {
			t.Errorf("one copy too many: %q", got)
		}
		if waiting := d.queued(); waiting != 0 {
			t.Errorf("%d wait", waiting)
		}
	})
}

func TestPayloadBounds(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := newPayloads()
		if d.add(0, make([]byte, maxPayload+1), 10) {
			t.Error("one that is too long was taken")
		}
		for i := range maxWaiting {
			if !d.add(0, make([]byte, i%(maxPayload+1)), 10) {
				t.Fatalf("no room for %d", i)
			}
		}
		if d.add(0, []byte("x"), 10) {
			t.Error("one too many was taken")
		}
		if waiting := d.queued(); waiting != maxWaiting {
			t.Errorf("%d wait, want %d", waiting, maxWaiting)
		}
		// take keeps to any limit of bytes, and to the number in a packet.
		for limit := range packet {
			size := 0
			out := d.takePayloads(3, limit)
			for _, b := range out {
				size += len(b) + 3
			}
			if size > limit || len(out) > maxInPacket {
				t.Fatalf("%d payloads of %d bytes in all, %d and %d are the most", len(out), size, maxInPacket, limit)
			}
		}
		// A payload that has waited for too long makes room.
		time.Sleep(maxWait + time.Millisecond)
		if !d.add(0, []byte("x"), 10) {
			t.Error("what is too old still takes room")
		}
		if waiting := d.queued(); waiting != 1 {
			t.Errorf("%d wait, want 1", waiting)
		}
		// The longest fits beside the longest cluster name.
		d.add(0, make([]byte, maxPayload), 10)
		if got := d.takePayloads(3, 1400-2-2-memberlist.LabelMaxSize); len(got) == 0 || len(got[0]) != 1+maxPayload {
			t.Error("the longest never goes out")
		}
	})
}

func TestPayloadsHeard(t *testing.T) {
	d := newPayloads()
	nth := func(i int) []byte { return fmt.Append(nil, "payload ", i) }
	const k = 5 * rememberHeard
	for i := range k {
		if !d.isNew(nth(i)) {
			t.Fatalf("%q is new", nth(i))
		}
		if last := max(0, i-rememberHeard+1); d.isNew(nth(i)) || d.isNew(nth(last)) {
			t.Fatalf("%q and %q are not new", nth(i), nth(last))
		}
	}
	if got := len(d.heard) + len(d.before); got > 2*rememberHeard {
		t.Errorf("%d are remembered, want %d at most", got, 2*rememberHeard)
	}
	if !d.isNew(nth(0)) {
		t.Errorf("the first of %d is remembered", k)
	}
}

func TestCopies(t *testing.T) {
	for _, tc := range []struct{ members, want int }{{2, 4}, {3, 4}, {10, 6}, {100, 9}} {
		if got := copies(tc.members); got != tc.want {
			t.Errorf("of %d members each sends %d copies, want %d", tc.members, got, tc.want)
		}
		// Nearly always all members get it.
		if miss := float64(tc.members) * math.Exp(-float64(tc.want)); miss > 0.06 {
			t.Errorf("%d members: one payload in %.0f misses somebody", tc.members, 1/miss)
		}
	}
}

// TestBroadcast: a payload reaches all nodes, and each node once.
func TestBroadcast(t *testing.T) {
	for _, tc := range []struct {
		name  string
		edit  func(c *cluster)
		least float64 // of 1
	}{
		{"a good network", func(*cluster) {}, 0.98},
		{"loss of 10 %", func(c *cluster) { c.SetLoss(0.1) }, 0.97},
		{"links cut", func(c *cluster) {
			for i := range 5 { // the links of node 0 to half of them
				c.Cut(ipOf(0), ipOf(i+5))
			}
		}, 0.9},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *cluster) {
				c.startAll(10)
				tc.edit(c)
				const k = 50
				for i := range k {
					if !c.nodes[i%5].Broadcast(fmt.Append(nil, "payload ", i)) {
						t.Errorf("no room for %d", i)
					}
					time.Sleep(20 * time.Millisecond)
				}
				time.Sleep(time.Second)
				reached, twice := 0, 0
				for _, n := range c.nodes {
					for b, times := range n.got() {
						var k int
						if _, err := fmt.Sscanf(b, "payload %d", &k); err != nil || c.nodes[k%5] == n {
							t.Errorf("%s received its own: %q, %v", n.name, b, err)
						}
						reached++
						twice += times - 1
					}
				}
				if got := float64(reached) / (k * 9); got < tc.least {
					t.Errorf("%.1f %% arrived, want %.1f %%", 100*got, 100*tc.least)
				}
				if twice > 0 {
					t.Errorf("%d came twice", twice)
				}
				n := c.nodes[9]
				if waiting, garbage := n.payloads.queued(), n.garbage.Load(); waiting != 0 || garbage != 0 {
					t.Errorf("at a node that passed them on %d wait; garbage: %d", waiting, garbage)
				}
			})
		})
	}
}

// TestBroadcastAlone: a node that is alone has no other node to reach, and keeps
// nothing for nodes that come later.
func TestBroadcastAlone(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		n := c.start(0)
		for range 2 * maxWaiting {
			if !n.Broadcast([]byte("x")) {
				t.Fatal("no room")
			}
		}
		if n.Broadcast(make([]byte, maxPayload+1)) {
			t.Error("one that is too long was taken")
		}
		if waiting := n.payloads.queued(); waiting != 0 {
			t.Errorf("%d wait", waiting)
		}
	})
}

// TestFlood: all nodes send as many payloads as there is room for. No node is missed
// because of it, and a dead node is missed as soon as ever.
func TestFlood(t *testing.T) {
	testenv.Takes(t, time.Second/2)
	for _, size := range []int{1, maxPayload} {
		t.Run(fmt.Sprint(size, " bytes"), func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *cluster) {
				c.startAll(10)
				stop := make(chan struct{})
				flooding := make(chan int)
				flood := func(n *node) {
					refused := 0
					for i := 0; ; i++ {
						select {
						case <-stop:
							flooding <- refused
							return
						default:
						}
						b := append(fmt.Append(nil, n.name, i), make([]byte, size)...)[:max(size, 8)]
						if !n.Broadcast(b) {
							refused++
							time.Sleep(5 * time.Millisecond)
						}
					}
				}
				flooders := c.nodes
				for _, n := range flooders {
					go flood(n)
				}
				c.stays("in a flood", 2*time.Second)
				waiting, health := c.nodes[0].payloads.queued(), c.nodes[0].list.GetHealthScore()
				if waiting > maxWaiting || health != 0 {
					t.Errorf("%d wait, health %d", waiting, health)
				}
				n := c.nodes[9]
				n.kill()
				d := c.until("all miss it", 6*time.Second, c.all(n.name, missing))
				t.Logf("missing after %v", d)
				close(stop)
				refused := 0
				for range flooders {
					refused += <-flooding
				}
				if refused == 0 {
					t.Error("there was no bound")
				}
			})
		})
	}
}

// TestPayloadGarbage: foreign data is counted and goes nowhere.
func TestPayloadGarbage(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		n := c.start(0)
		d := delegate{n.Gossip}
		d.NotifyMsg(nil)
		d.NotifyMsg(make([]byte, maxPayload+2))
		if s := n.Stats(); s.Garbage != 2 || len(n.got()) != 0 {
			t.Errorf("stats %+v, received %v", s, n.got())
		}
		d.NotifyMsg([]byte{0xff, 'x'}) // more hops than allowed
		if got := n.payloads.takePayloads(3, packet); len(got) != 1 || got[0][0] != maxHops-1 {
			t.Errorf("passed on: %q, want %d hops", got, maxHops-1)
		}
		d.NotifyMsg([]byte{0, 'y'}) // no more hops
		if got := n.payloads.takePayloads(3, packet); len(got) != 1 || got[0][1] != 'x' {
			t.Errorf("passed on: %q, want the one before only", got)
		}
		if got := n.got(); got["x"] != 1 || got["y"] != 1 {
			t.Errorf("received %v", got)
		}
	})
}

var _ memberlist.Delegate = delegate{}

// TestPayloadsInAPacket: a packet has few payloads, even if they are small.
func TestPayloadsInAPacket(t *testing.T) {
	d := newPayloads()
	for range 4 * maxInPacket {
		d.add(0, []byte("x"), 10)
	}
	if got := len(d.takePayloads(3, packet)); got != maxInPacket {
		t.Errorf("%d in one packet", got)
	}
}
