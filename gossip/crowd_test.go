package gossip

import (
	"context"
	"sync"
	"testing"
	"time"
)

// TestCrowdShutsNoneOut: strangers at some addresses take all places for streams,
// and take each place again that comes free. They do not keep a host out: a place is
// taken from the address that has most.
func TestCrowdShutsNoneOut(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		c.startAll(2)
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 2 * maxStreams {
			wg.Go(func() {
				for ctx.Err() == nil {
					nc, err := c.Host(ipOf(20+i%6)).Dial(ctx, addressOf(0))
					if err != nil {
						return
					}
					_ = nc.SetReadDeadline(time.Now().Add(time.Minute))
					_, _ = nc.Read(make([]byte, 1))
					_ = nc.Close()
					time.Sleep(5 * time.Millisecond)
				}
			})
		}
		time.Sleep(time.Second)
		if got := c.nodes[0].Stats().Streams; got < maxStreams*3/4 {
			t.Errorf("%d streams are open", got)
		}
		c.start(2)
		c.until("it finds the others", 10*time.Second, c.whole)
		if got := c.nodes[0].Stats().Streams; got > maxStreams {
			t.Errorf("%d streams are open", got)
		}
		stop()
		time.Sleep(2 * streamTimeout)
		wg.Wait()
	})
}
