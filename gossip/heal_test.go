package gossip

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestSplitHeals: a split heals, also if it lasts longer than memberlist remembers
// the nodes on the other side.
func TestSplitHeals(t *testing.T) {
	testenv.Takes(t, 2*time.Second)
	t.Parallel()
	const limit = rejoinEvery*3/2 + 2*streamTimeout
	halves := func(c *cluster, k int) {
		for i := range k / 2 {
			for j := k / 2; j < k; j++ {
				c.Cut(ipOf(i), ipOf(j))
			}
		}
	}
	for _, tc := range []struct {
		name string
		cut  func(c *cluster, k int)
		edit func(*Config)
	}{
		{"halves", halves, nil},
		{"halves that join nobody", halves, func(c *Config) {
			if c.Node != "n1" { // n1 joins n0 at the start; both are in one half
				c.Join = []string{addressOf(1)}
			}
		}},
		{"one of them", func(c *cluster, k int) { c.Isolate(ipOf(k - 1)) }, nil},
		{"the one that all join", func(c *cluster, k int) { c.Isolate(ipOf(0)) }, nil},
		{"each from each", func(c *cluster, k int) {
			for i := range k {
				c.Isolate(ipOf(i))
			}
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, k := range []int{2, 6} {
				for _, lasts := range []time.Duration{10 * time.Second, time.Minute, 10 * time.Minute} {
					if k > 2 && lasts > time.Minute && !*allSizes {
						continue
					}
					inBubble(t, func(t *testing.T, c *cluster) {
						edit := tc.edit
						if edit == nil {
							edit = func(*Config) {}
						}
						c.startAll(k, edit)
						tc.cut(c, k)
						time.Sleep(lasts)
						if lasts >= time.Minute && c.whole() {
							t.Error("there was no split")
						}
						c.Heal()
						d := c.until("it heals", limit, c.whole)
						t.Logf("%d nodes, split for %v: whole after %v", k, lasts, d)
					})
				}
			}
		})
	}
}

// TestOneSidedJoin: nodes were started while they could not reach each other, and
// only one of them knows where the other is.
func TestOneSidedJoin(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		c.Cut(ipOf(0), ipOf(2))
		c.Cut(ipOf(0), ipOf(3))
		c.Cut(ipOf(1), ipOf(2))
		c.Cut(ipOf(1), ipOf(3))
		c.start(0, join())
		c.start(1)
		c.start(2)                     // knows n0
		c.start(3, join(addressOf(2))) // knows no node of the other side
		time.Sleep(5 * time.Minute)
		for _, n := range c.nodes {
			if got := n.count(); got != 2 {
				t.Errorf("%s sees %d nodes, want 2", n.name, got)
			}
		}
		c.Heal()
		d := c.until("it heals", rejoinEvery*3/2+2*streamTimeout, c.whole)
		t.Logf("whole after %v", d)
	})
}

// TestPaused: a node that no other node could hear for a while comes back, although
// it is never told that the others considered it dead.
func TestPaused(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		c.startAll(3)
		n := c.nodes[1]
		for _, m := range c.nodes {
			c.CutOneWay(n.ip, m.ip)
		}
		c.until("the others miss it", 10*time.Second, c.all(n.name, missing))
		c.Heal()
		c.until("it is back", rejoinEvery*3/2, c.all(n.name, aliveAs(1)))
	})
}

// TestJoinLater: no node answers at first.
func TestJoinLater(t *testing.T) {
	for _, tc := range []struct {
		name  string
		begin func(c *cluster)
	}{
		{"no such machine", func(c *cluster) {}},
		{"it refuses", func(c *cluster) { c.Host(ipOf(0)) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *cluster) {
				tc.begin(c)
				n := c.start(1)
				time.Sleep(10 * time.Minute)
				if got := n.count(); got != 1 {
					t.Errorf("%d members", got)
				}
				got := n.log.String()
				if strings.Count(got, "level=WARN") != 1 || !strings.Contains(got, addressOf(0)) || !strings.Contains(got, "trying again") {
					t.Errorf("it should say once that no node answers, and where:\n%s", got)
				}
				c.start(0, join())
				d := c.until("it finds the other", rejoinEvery*3/2+2*streamTimeout, c.whole)
				t.Logf("after %v", d)
			})
		})
	}
}

// TestStartTogether: all nodes start at once, or the node that all join comes last.
func TestStartTogether(t *testing.T) {
	testenv.Takes(t, time.Second)
	for _, tc := range []struct {
		name        string
		nodes, runs int
		pause       time.Duration
	}{
		{"at once", 30, 5, 0},
		{"the last first", 10, 3, 50 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for range tc.runs {
				inBubble(t, func(t *testing.T, c *cluster) {
					c.Host(ipOf(0)) // the machine is there
					for i := range tc.nodes {
						c.start(tc.nodes - 1 - i)
						time.Sleep(tc.pause)
					}
					d := c.until("all find each other", 1500*time.Millisecond, c.whole)
					t.Logf("after %v", d)
				})
			}
		})
	}
}

// TestStartAsks: what a starting node does not hear by gossip it learns by asking
// other nodes.
func TestStartAsks(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		for i := range 6 {
			c.startWith(i, func(tr memberlist.Transport) memberlist.Transport { return streamsOnly{tr} })
		}
		d := c.until("all find each other", rejoinEvery*3/2, c.whole)
		t.Logf("after %v", d)
	})
}

// TestDarkJoinAddresses: addresses that do not answer do not delay one that does.
func TestDarkJoinAddresses(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		var list []string
		for i := range maxTries {
			list = append(list, addressOf(100+i))
		}
		list[maxTries-1] = addressOf(0)
		c.start(0, join())
		c.start(1, join(list...))
		c.until("they find each other", streamTimeout, c.whole)
	})
}

// TestJoinName: a name does not resolve at first, and then resolves to several
// addresses.
func TestJoinName(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		var known atomic.Bool
		names := func(cfg *Config) {
			cfg.Join = []string{"sidecars.test:7946"}
			cfg.Resolve = func(_ context.Context, host string) ([]string, error) {
				if host != "sidecars.test" {
					t.Errorf("%q was looked up", host)
				}
				if !known.Load() {
					return nil, errors.New("no such host")
				}
				return []string{ipOf(0), "::ffff:" + ipOf(1), ipOf(2), ipOf(3), "nonsense"}, nil
			}
		}
		for i := range 4 {
			c.start(i, names)
		}
		time.Sleep(time.Minute)
		for _, n := range c.nodes {
			if got := n.log.String(); strings.Count(got, "level=WARN") != 1 || !strings.Contains(got, "join address sidecars.test:7946: no such host") {
				t.Errorf("%s should say once that the name does not resolve:\n%s", n.name, got)
			}
			if got := n.count(); got != 1 {
				t.Errorf("%s sees %d nodes", n.name, got)
			}
		}
		known.Store(true)
		c.until("all find each other", rejoinEvery*3/2, c.whole)
		// It asks no node that it sees, itself included.
		time.Sleep(time.Minute)
		if got, err := c.nodes[0].targets(t.Context(), false); len(got) > 0 || err != nil {
			t.Errorf("it would join %v while no node is missing: %v", got, err)
		}
	})
}

// TestSlowNames: a name that hangs does not delay other names.
func TestSlowNames(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		c.start(0, join())
		c.start(1, join("hangs.test:7946", "quick.test:7946", "hangs2.test:7946"), func(cfg *Config) {
			cfg.Resolve = func(ctx context.Context, host string) ([]string, error) {
				if host == "quick.test" {
					return []string{ipOf(0)}, nil
				}
				<-ctx.Done()
				return nil, ctx.Err()
			}
		})
		c.until("they find each other", resolveTimeout+time.Second, c.whole)
	})
}

// TestJoinNameWhileOthersLive: two sides have never met and know each other only by a
// name.
func TestJoinNameWhileOthersLive(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		names := func(cfg *Config) {
			cfg.Join = []string{"sidecars.test:7946"}
			cfg.Resolve = func(context.Context, string) ([]string, error) {
				return []string{ipOf(0), ipOf(1), ipOf(2), ipOf(3)}, nil
			}
		}
		for i := range 2 {
			for j := 2; j < 4; j++ {
				c.Cut(ipOf(i), ipOf(j))
			}
		}
		for i := range 4 {
			c.start(i, names)
		}
		time.Sleep(time.Minute)
		c.Heal()
		c.until("all find each other", rejoinEvery*3/2+2*streamTimeout, c.whole)
	})
}

// TestManyJoinAddresses: a round of joins is bounded, and in the end all are tried.
func TestManyJoinAddresses(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		var list []string
		for i := range 100 {
			list = append(list, fmt.Sprintf("%s:%d", ipOf(0), 1000+i))
		}
		n := c.start(1, join(append(list, addressOf(2))...))
		targets, err := n.targets(t.Context(), false)
		if len(targets) != maxTries || err != nil {
			t.Errorf("%d tries in a round, want %d; %v", len(targets), maxTries, err)
		}
		c.start(2, join())
		c.until("it finds the one", 10*time.Minute, c.whole)
	})
}

// TestDatagramsBlocked: a firewall lets TCP through and not UDP. No node is missing,
// and the operator is told now and then.
func TestDatagramsBlocked(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		c.startWith(0, func(tr memberlist.Transport) memberlist.Transport { return streamsOnly{tr} })
		c.start(1)
		c.until("they find each other", time.Second, c.whole)
		c.stays("without datagrams", 150*time.Second)
		got := c.nodes[0].log.String()
		if k := strings.Count(got, "answers over TCP and not over UDP"); k != 3 || !strings.Contains(got, "let both through") {
			t.Errorf("it was said %d times in 150 s, want 3:\n%s", k, got)
		}
	})
}

// streamsOnly loses all datagrams.
type streamsOnly struct{ memberlist.Transport }

func (streamsOnly) WriteTo([]byte, string) (time.Time, error) { return time.Now(), nil }

// TestLoss: lost packets make no node missing, except for a moment in hours.
func TestLoss(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		c.startAll(10)
		c.SetLoss(0.1)
		looks, missing := 0, 0
		for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			for _, n := range c.nodes {
				for _, m := range n.Members() {
					if looks++; !m.Alive {
						missing++
					}
				}
			}
		}
		if missing > looks/100 {
			t.Errorf("missing at %d of %d looks", missing, looks)
		}
		c.SetLoss(0)
		c.until("all see all", 10*time.Second, c.whole)
	})
}
