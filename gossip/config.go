package gossip

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/time/rate"
)

const (
	maxNode    = 256
	maxCluster = memberlist.LabelMaxSize
)

// memberlist returns memberlist's configuration.
func (cfg *Config) memberlist() (*memberlist.Config, error) {
	if len(cfg.Node) == 0 || len(cfg.Node) > maxNode {
		return nil, fmt.Errorf("gossip: a node name of %d bytes: give 1 to %d", len(cfg.Node), maxNode)
	}
	if len(cfg.Cluster) > maxCluster {
		return nil, fmt.Errorf("gossip: a cluster name of %d bytes: give %d at most", len(cfg.Cluster), maxCluster)
	}
	for _, j := range cfg.Join {
		if _, _, err := hostPort("join", j); err != nil {
			return nil, err
		}
	}
	c := memberlist.DefaultLANConfig()
	c.Name, c.Label = cfg.Node, cfg.Cluster
	c.ProbeInterval, c.ProbeTimeout, c.SuspicionMult = probeInterval, probeTimeout, suspicionMult
	c.SuspicionMaxTimeoutMult = 2
	c.GossipInterval, c.PushPullInterval = gossipInterval, pushPull
	c.TCPTimeout = streamTimeout
	c.DeadNodeReclaimTime = reclaimAfter
	c.EnableCompression = false
	c.Transport = cfg.Transport
	bind, port, err := ipPort("bind", cfg.Bind)
	if err != nil {
		return nil, err
	}
	// The address is never a name: memberlist would take a name for all addresses
	// of the host.
	c.BindAddr, c.BindPort = bind.String(), port
	if cfg.Advertise == "" {
		if bind.IsUnspecified() {
			return nil, fmt.Errorf("gossip: bind address %q is all addresses of this host: give the one that others use as advertise address", cfg.Bind)
		}
		c.AdvertisePort = port
		return c, nil
	}
	advertise, aport, err := ipPort("advertise", cfg.Advertise)
	if err != nil {
		return nil, err
	}
	if advertise.IsUnspecified() {
		return nil, fmt.Errorf("gossip: advertise address %q: give the one address that others use", cfg.Advertise)
	}
	c.AdvertiseAddr, c.AdvertisePort = advertise.String(), aport
	if aport == 0 {
		c.AdvertisePort = port
	}
	return c, nil
}

func hostPort(what, s string) (string, int, error) {
	host, port, err := net.SplitHostPort(s)
	if err == nil {
		var n uint64
		if n, err = strconv.ParseUint(port, 10, 16); err == nil && host != "" {
			return host, int(n), nil
		}
	}
	if err == nil {
		err = fmt.Errorf("there is no host")
	}
	return "", 0, fmt.Errorf("gossip: %s address %q: give host:port, such as 127.0.0.1:7946 (%w)", what, s, err)
}

// ipPort reads the address of an interface.
func ipPort(what, s string) (netip.Addr, int, error) {
	host, port, err := hostPort(what, s)
	if err != nil {
		return netip.Addr{}, 0, err
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err == nil && ip.Zone() != "" {
		err = fmt.Errorf("a zone does not reach others")
	}
	if err != nil {
		return ip, 0, fmt.Errorf("gossip: %s address %q: give ip:port, such as 127.0.0.1:7946 (%w)", what, s, err)
	}
	return ip.Unmap(), port, nil
}

// logger takes memberlist's log lines. A line about what another node sent ends with
// where that came from. memberlist does not count these lines, so they are counted
// here.
func (g *Gossip) logger() *log.Logger {
	return log.New(&lines{g: g, few: rate.NewLimiter(linesRate, linesRate)}, "", 0)
}

type lines struct {
	g         *Gossip
	misrouted time.Time // when it was last told; log.Logger calls one at a time
	few       *rate.Limiter
}

// linesRate is how many of memberlist's lines per second are logged, since strangers
// can cause them.
const linesRate = 20

func (l *lines) Write(b []byte) (int, error) {
	b = bytes.TrimSpace(b)
	if bytes.Contains(b, []byte(" from=")) && (bytes.HasPrefix(b, []byte("[ERR]")) || bytes.HasPrefix(b, []byte("[WARN]"))) {
		l.g.garbage.Add(1)
	}
	l.g.tellKeys(string(b))
	if bytes.Contains(b, []byte("over TCP but UDP probes failed")) && time.Since(l.misrouted) > time.Minute {
		l.misrouted = time.Now()
		l.g.cfg.Log.Warn("a member answers over TCP and not over UDP: let both through on the gossip port", "memberlist", string(b))
	} else if l.g.cfg.Log.Enabled(context.Background(), slog.LevelDebug) && l.few.Allow() {
		l.g.cfg.Log.Debug(string(b))
	}
	return len(b), nil
}
