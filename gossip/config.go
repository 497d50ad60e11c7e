package gossip

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
)

// Config is the configuration of a Gossip. A zero field means its default.
type Config struct {
	Node    string // this node's name; unique in the cluster
	Cluster string // the cluster's name; packets of other clusters are dropped
	// Bind is ip:port for UDP and TCP, or localhost:port. Port 0 takes a free
	// port.
	Bind string
	// Advertise is the ip:port that other nodes use; port 0 is Bind's. Default:
	// Bind, which must then be one address.
	Advertise string
	// Join lists host:port of other nodes. A name may have several addresses, and
	// is looked up again each time.
	Join []string
	Meta Meta
	// Keys encrypt everything that is sent. The first key is in use, all are
	// accepted; a message that none of them has encrypted is dropped. 32 bytes
	// each; empty: plain text.
	Keys [][]byte

	// Receive takes a payload. It must not block, and must not keep b.
	Receive func(b []byte)
	// Conflict is told of two processes of one name, this node's or another's, once
	// that has lasted for 15 s, and again every 15 s as long as it lasts. It must
	// not block.
	Conflict func(node, known, other string)
	// Known says whether a process that gossip tells of counts. One that does not is kept
	// from memberlist, until gossip tells of it again, as by Exchange. Known must not block
	// or call back. Default: all count.
	Known func(m Member) bool

	// RejoinEvery is about how often nodes that cannot be heard are tried; at the
	// start they are tried more often. Default: 5 s.
	RejoinEvery time.Duration
	// Transport replaces UDP and TCP, Resolve the system's resolver of names, and
	// Interfaces the addresses of this machine, for tests. With a Transport there are
	// no other addresses of this machine by default.
	Transport  memberlist.Transport
	Resolve    func(ctx context.Context, host string) ([]string, error)
	Interfaces func() ([]net.Addr, error)
	// Log takes memberlist's lines at debug level, and what the operator should
	// know.
	Log *slog.Logger
}

// The timing. The package comment lists the resulting delays.
const (
	probeInterval = 500 * time.Millisecond
	// An indirect probe may take as long again; both together are less than
	// probeInterval.
	probeTimeout   = 200 * time.Millisecond
	suspicionMult  = 3
	gossipInterval = 50 * time.Millisecond
	pushPull       = 15 * time.Second
	reclaimAfter   = time.Millisecond // new address of a name whose old one is dead
	rejoinEvery    = 5 * time.Second
	streamTimeout  = 2 * time.Second
	leaveTimeout   = 500 * time.Millisecond
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
			return nil, fmt.Errorf("gossip: bind address %q is all addresses of this host: "+
				"give the one that others use as advertise address", cfg.Bind)
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
