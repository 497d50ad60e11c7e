package gossip

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
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
	// Advertise is the IP address that other nodes use, with Bind's port. Default: that
	// of Bind, which must then be one address.
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
	// or call back.
	Known func(m Member) bool

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
	rejoinEvery    = 5 * time.Second  // about: nodes that cannot be heard are tried; at the start more often
	streamTimeout  = 2 * time.Second
	leaveTimeout   = 500 * time.Millisecond
)

// memberlist returns memberlist's configuration. Package cluster has checked the addresses.
func (cfg *Config) memberlist() (*memberlist.Config, error) {
	// The address is never a name: memberlist would take a name for all addresses
	// of the host.
	host, port, _ := net.SplitHostPort(cfg.Bind)
	if host == "localhost" {
		host = "127.0.0.1"
	}
	bind, err := netip.ParseAddrPort(net.JoinHostPort(host, port))
	if err != nil {
		return nil, fmt.Errorf("gossip: bind address %q: %w", cfg.Bind, err)
	}
	c := memberlist.DefaultLANConfig()
	c.BindAddr, c.BindPort = bind.Addr().Unmap().String(), int(bind.Port())
	c.AdvertiseAddr, c.AdvertisePort = cfg.Advertise, c.BindPort
	c.Name, c.Label = cfg.Node, cfg.Cluster
	c.ProbeInterval, c.ProbeTimeout, c.SuspicionMult = probeInterval, probeTimeout, suspicionMult
	c.SuspicionMaxTimeoutMult = 2
	c.GossipInterval, c.PushPullInterval = gossipInterval, pushPull
	c.TCPTimeout = streamTimeout
	c.DeadNodeReclaimTime = reclaimAfter
	c.EnableCompression = false
	c.Transport = cfg.Transport
	return c, nil
}
