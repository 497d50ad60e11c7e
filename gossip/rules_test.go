package gossip

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// TestUnknownRules: the name of a process at a join address is not taken by a process
// elsewhere. The numbers of met processes that wait, and that are asked at once, are
// bounded.
func TestUnknownRules(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		n := c.start(0)
		at := func(name, ip string) *memberlist.Node {
			return &memberlist.Node{Name: name, Addr: net.ParseIP(ip).To4(), Port: port, PMin: 1, PMax: 5, PCur: 2}
		}
		n.unknown.setJoins(&n.mu, []string{at("", ipOf(1)).Address()})
		n.heardOf(at("n1", ipOf(1)), Meta{Epoch: 1})
		n.heardOf(at("n1", ipOf(9)), Meta{Epoch: 2})
		if list := n.Unknown(); len(list) != 1 || list[0].Meta.Epoch != 1 {
			t.Errorf("%+v", list)
		}
		n.Gossip.mu.Lock()
		n.unknown.met = make([]Unknown, maxUnknown)
		n.Gossip.mu.Unlock()
		if n.Met("n1"); len(n.unknown.met) > maxUnknown {
			t.Errorf("%d wait to be asked", len(n.unknown.met))
		}
		for i := range n.unknown.met {
			n.unknown.met[i] = Unknown{Node: fmt.Sprint("m", i), Address: addressOf(50)}
		}
		if list := n.toRetell(t.Context()); len(list) > maxRetold {
			t.Errorf("%d are asked at once", len(list))
		}
		n.Gossip.mu.Lock()
		n.unknown.met = nil
		n.Gossip.mu.Unlock()
		time.Sleep(time.Second)
	})
}

// TestPayloadsInAPacket: a packet has few payloads, even if they are small.
func TestPayloadsInAPacket(t *testing.T) {
	d := newPayloads()
	for range 4 * maxInPacket {
		d.add(0, []byte("x"), 10)
	}
	if got := len(d.take(3, packet)); got != maxInPacket {
		t.Errorf("%d in one packet", got)
	}
}
