package gossip

import (
	"net"
	"testing"
	"time"

	gt "github.com/cachesidecar/cachesidecar/internal/testing/gossiptest"
)

// TestLaterProcessAtTheAddress: a stranger's datagram gives a host's process the
// highest count that exists. memberlist would take no word of the host's next
// process, but that process is not kept out.
func TestLaterProcessAtTheAddress(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		c.startAll(3)
		tr := c.Host(ipOf(200)).Transport(0)
		for i := range 3 {
			meta := gt.Meta(ipOf(1)+":7947", 1, 100, false, 1)
			_, _ = tr.WriteTo(gt.Labelled("test", gt.Alive("n1", net.ParseIP(ipOf(1)), port, 1<<32-1, meta)), addressOf(i))
		}
		_ = tr.Shutdown()
		time.Sleep(10 * time.Second)
		c.nodes[1].kill()
		time.Sleep(100 * time.Millisecond)
		n := c.start(1, epoch(2))
		c.until("all see the next process", pushPull*2, c.all("n1", aliveAs(2)))
		time.Sleep(time.Minute)
		if !c.all("n1", aliveAs(2))() {
			t.Error("it is not seen any more")
		}
		n.kill()
		c.until("all miss it", pushPull*2, c.all("n1", missing))
		time.Sleep(time.Minute)
		if m := c.nodes[0].member("n1"); m == nil || m.State != Missing || m.Meta.Epoch != 2 {
			t.Errorf("%+v", m)
		}
	})
}
