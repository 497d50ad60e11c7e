package cluster

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// New makes a node. A node that is alone owns every partition at once; any other node
// does nothing until Run.
func New(cfg Config) (*Node, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	cfg.Versions.Follow(cfg.Clock)
	n := &Node{cfg: &cfg, counts: &counts{}, listening: make(chan struct{})}
	n.compose()
	if n.SingleNode() {
		n.driver.tick(cfg.Clock.Read().Boot)
	}
	return n, nil
}

// compose makes the parts, each from those that it uses. Functions stand for the parts
// that are made later; they are not called before compose returns.
func (n *Node) compose() {
	cfg, counts := n.cfg, n.counts
	identity := &peer.Identity{
		Cluster: cfg.Cluster, Self: cfg.Self, Settings: cfg.settings(), MaxSkew: cfg.MaxSkew,
		Clock: cfg.Clock, Versions: cfg.Versions,
		Floors: func() []wire.Floor { return cfg.floors(failpoint.FloorsInHello) }, Learn: cfg.learn,
	}
	n.pool = peer.NewPool(peer.PoolConfig{
		Identity: identity, Credentials: cfg.Credentials, Dial: cfg.Network.Dial,
		Unheard: 2 * cfg.Bound, Budget: cfg.Budget,
		Greeted: func(node kv.NodeID, answered kv.Process, err error) { n.admission.greeted(node, answered, err) },
	})
	report := &reporter{log: cfg.Log, clock: cfg.Clock, self: cfg.Self, lines: map[string]time.Duration{}}
	n.driver = newDriver(cfg, counts, report)
	n.acquaintances = newAcquaintances(cfg.Self.Node, cfg.Log, n.pool)
	n.admission = &admission{
		identity: identity, log: cfg.Log, driver: n.driver,
		acquaintances: n.acquaintances, report: report, counts: counts,
	}
	n.driver.state.ballots = &ballots{cfg: cfg, driver: n.driver, pool: n.pool, admission: n.admission}
	n.following = &following{
		cfg: cfg, pool: n.pool, driver: n.driver, admission: n.admission, report: report, counts: counts,
	}
	n.followers = &followers{cfg: cfg, readers: readers{}}
	n.Agreement = newAgreement(cfg, n.pool, report)
	n.poller = &poller{
		cfg: cfg, driver: n.driver, pool: n.pool, admission: n.admission,
		acquaintances: n.acquaintances, following: n.following, counts: counts,
		agreement: n.Agreement,
	}
	n.watcher = &watcher{
		cfg: cfg, driver: n.driver, pool: n.pool, acquaintances: n.acquaintances,
		report: report, counts: counts, poll: n.poller.poll, follow: n.following.follow,
	}
	n.relay = &relay{cfg: cfg, driver: n.driver, admission: n.admission, counts: counts}
	n.flusher = &flusher{cfg: cfg, driver: n.driver, pool: n.pool, admission: n.admission}
	n.departure = &departure{cfg: cfg, driver: n.driver, pool: n.pool, flusher: n.flusher, report: report}
	n.SetLeaveTime(cfg.LeaveTime)
	n.server = peer.NewServer(identity, cfg.Credentials, cfg.limits(), cfg.Log, n.handler, n.admission.refused)
}
