package sidecar

import (
	"cmp"
	"errors"
	"log/slog"
	"maps"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/internal/shm"
	"github.com/cachesidecar/cachesidecar/internal/verify"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Defaults.
const (
	DefaultNamespace  = "default"
	DefaultL1Size     = 64 << 20
	DefaultL2Size     = 256 << 20
	DefaultTimeout    = time.Second
	DefaultLeaveTime  = 10 * time.Second
	DefaultBufferSize = 128 << 20
)

// Bounds of the settings, and the address of gossip if only join is given.
const (
	defaultBind       = "127.0.0.1:7946"
	maxBound          = time.Minute
	minNamespaceBound = 200 * time.Millisecond
	maxClusterName    = 64 // bytes
	maxConnections    = 1 << 20
	maxShared         = 1 << 30
	defaultShared     = 32 << 20
)

// withDefaults returns a copy with every field set. The error joins all that is wrong.
// A setting that is wrong counts as its default in the checks of others.
func (c Config) withDefaults() (Config, error) {
	var wrong settings.Problems
	for _, step := range []func(*Config) error{
		(*Config).nameDefaults, (*Config).sizeDefaults, (*Config).namespaceDefaults, (*Config).limitDefaults,
		(*Config).clusterDefaults, (*Config).checkHTTP, (*Config).memcachedDefaults,
		(*Config).checkKeep,
	} {
		wrong.Add(step(&c))
	}
	c.Version = cmp.Or(c.Version, "embedded")
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.clock == nil {
		c.clock = kv.NewSystemClock()
	}
	return c, wrong.Err()
}

// unseen reports whether other hosts refuse names with a character: see package gossip.
func unseen(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) }

// nameDefaults sets and checks the name of this node and the mode of its socket.
func (c *Config) nameDefaults() error {
	var wrong settings.Problems
	if c.Node == "" {
		name, err := os.Hostname()
		if err != nil {
			wrong.Addf("node", ": no host name to take (%w): give a name", err)
		}
		c.Node = name
	}
	if len(c.Node) > 128 || !utf8.ValidString(c.Node) || strings.ContainsFunc(c.Node, unseen) {
		wrong.Addf("node", "%q: give 1 to 128 bytes without blanks and control characters", c.Node)
	}
	if c.SocketMode&^0o777 != 0 {
		wrong.Addf("socket_mode", "%o: give permission bits only, such as 0660", uint32(c.SocketMode))
	}
	return wrong.Err()
}

// sizeDefaults sets and checks the sizes in bytes.
func (c *Config) sizeDefaults() error {
	var wrong settings.Problems
	var err error
	c.L1Size, err = size("l1_size", c.L1Size, DefaultL1Size, 1<<20, 1<<40)
	wrong.Add(err)
	c.L2Size, err = size("l2_size", c.L2Size, DefaultL2Size, 8<<20, 256<<30)
	wrong.Add(err)
	if c.SharedSize = cmp.Or(c.SharedSize, c.sharedDefault()); c.SharedSize != Off {
		c.SharedSize, err = size("shared_size", c.SharedSize, Off, shm.MinSize, maxShared)
		wrong.Add(err)
	}
	c.MaxValue, err = size("max_value", c.MaxValue, min(8<<20, c.L2Size/16), 1, 1<<30)
	wrong.Add(err)
	if c.MaxValue > c.L2Size/16 {
		wrong.Addf("max_value", "%s is above 1/16 of l2_size %s: raise l2_size to %s, or lower max_value to %s",
			c.MaxValue, c.L2Size, c.MaxValue*16, c.L2Size/16)
	}
	longest := 4 * (c.MaxValue + wire.FrameSlack)
	c.BufferSize, err = size("buffer_size", c.BufferSize, max(DefaultBufferSize, longest), 16<<20, 64<<30)
	wrong.Add(err)
	if c.BufferSize < longest {
		wrong.Addf("buffer_size", "%s is below four requests of max_value %s: raise it to %s, or lower max_value",
			c.BufferSize, c.MaxValue, longest)
	}
	return wrong.Err()
}

// sharedDefault returns the default of shared_size.
func (c *Config) sharedDefault() Size {
	if !shm.Supported || c.NoSocket {
		return Off
	}
	return min(max(c.L2Size/8, shm.MinSize), defaultShared)
}

// namespaceDefaults checks the namespaces, and adds the default one.
func (c *Config) namespaceDefaults() error {
	var wrong settings.Problems
	c.MaxNamespaces = cmp.Or(c.MaxNamespaces, kv.MaxNamespaces)
	if c.MaxNamespaces < 1 || c.MaxNamespaces > kv.MaxNamespaces {
		wrong.Addf("max_namespaces", "%d: give 1 to %d", c.MaxNamespaces, kv.MaxNamespaces)
		c.MaxNamespaces = kv.MaxNamespaces
	}
	names := map[string]Namespace{DefaultNamespace: {}}
	maps.Copy(names, c.Namespaces)
	for name, ns := range c.Namespaces {
		if name == verify.Namespace {
			wrong.Addf("namespaces."+name, "is reserved: use another name")
		} else if !kv.ValidNamespace(name) {
			wrong.Addf("namespaces."+name, ": a name is 1 to %d of a-z, 0-9, _, . and -", kv.MaxNamespaceLen)
		}
		wrong.Add(settings.Within("namespaces."+name, ns.check(c.L2Size)))
	}
	if len(names) > c.MaxNamespaces {
		wrong.Addf("max_namespaces", "%d: %d namespaces are configured (%q is one): raise it or configure fewer",
			c.MaxNamespaces, len(names), DefaultNamespace)
	}
	c.Namespaces = names
	return wrong.Err()
}

// limitDefaults sets and checks the limits of connections and of time.
func (c *Config) limitDefaults() error {
	var wrong settings.Problems
	c.MaxConnections = cmp.Or(c.MaxConnections, server.DefaultMaxConns)
	if c.MaxConnections < 0 || c.MaxConnections > maxConnections {
		wrong.Addf("max_connections", "%d: give 1 to %d", c.MaxConnections, maxConnections)
	}
	c.RequestTimeout = cmp.Or(c.RequestTimeout, DefaultTimeout)
	if c.RequestTimeout < time.Millisecond || c.RequestTimeout > wire.MaxTimeout*time.Millisecond {
		wrong.Addf("request_timeout", "%v: give 1ms to 1h", c.RequestTimeout)
	}
	return wrong.Err()
}

// clusterDefaults sets and checks what concerns other hosts.
func (c *Config) clusterDefaults() error {
	var wrong settings.Problems
	switch c.Bind {
	case "off":
		c.Bind = ""
		if len(c.Join) > 0 {
			wrong.Addf("join", "is given and bind is off: leave one of them out")
			c.Join = nil
		}
	case "":
		if len(c.Join) > 0 {
			c.Bind = defaultBind
		}
	}
	c.Cluster = cmp.Or(c.Cluster, cluster.DefaultCluster)
	c.PartitionPolicy = cmp.Or(c.PartitionPolicy, cluster.Available)
	c.MaxClockSkew = cmp.Or(c.MaxClockSkew, cluster.DefaultMaxSkew)
	c.Weight = cmp.Or(c.Weight, c.ownWeight())
	c.LeaveTime = cmp.Or(c.LeaveTime, DefaultLeaveTime)
	if c.LeaveTime < time.Second || c.LeaveTime > time.Hour {
		wrong.Addf("leave_time", "%v: give 1s to 1h", c.LeaveTime)
	}
	if c.MaxClockSkew < time.Millisecond || c.MaxClockSkew > time.Minute {
		wrong.Addf("max_clock_skew", "%v: give 1ms to 1m", c.MaxClockSkew)
	}
	if len(c.Cluster) > maxClusterName || strings.ContainsAny(c.Cluster, " \t\r\n\x00") {
		wrong.Addf("cluster", "%q: give 1 to %d bytes without blanks", c.Cluster, maxClusterName)
	}
	wrong.Add(c.boundDefaults())
	wrong.Add(c.paths().Check())
	if err := c.peerDefaults(); err != nil {
		wrong.Add(err)
	} else {
		wrong.Add(c.clusterConfig().Check())
	}
	return wrong.Err()
}

// boundDefaults sets and checks the bounds on how far a read may be behind.
func (c *Config) boundDefaults() error {
	var wrong settings.Problems
	c.MaxStaleness = cmp.Or(c.MaxStaleness, cluster.DefaultBound)
	if c.MaxStaleness < cluster.MinBound || c.MaxStaleness > maxBound {
		wrong.Addf("max_staleness", "%v: give %v to %v", c.MaxStaleness, cluster.MinBound, maxBound)
		c.MaxStaleness = cluster.DefaultBound
	}
	for name, ns := range c.Namespaces {
		if d := ns.MaxStaleness; d != 0 && (d < minNamespaceBound || d > c.MaxStaleness) {
			wrong.Addf("namespaces."+name+".max_staleness", "%v: give %v to %v, the sidecar's own",
				d, minNamespaceBound, c.MaxStaleness)
		}
	}
	return wrong.Err()
}

// ownWeight returns the weight of a host whose configuration gives none.
func (c *Config) ownWeight() uint32 { return cluster.WeightOf(int64(c.L2Size)) }

// peerDefaults sets the address for requests: the port after that of gossip.
func (c *Config) peerDefaults() error {
	if c.Bind == "" || c.PeerBind != "" {
		return nil
	}
	host, port, err := net.SplitHostPort(c.Bind)
	n, e := strconv.ParseUint(port, 10, 16)
	if err = errors.Join(err, e); err != nil {
		return settings.Problemf("bind", "%q: give host:port, such as %s (%w)", c.Bind, defaultBind, err)
	}
	if n > 0 {
		n++
	}
	c.PeerBind = net.JoinHostPort(host, strconv.FormatUint(n, 10))
	return nil
}

// loopback reports whether host:port is reached from this host alone.
func loopback(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// clusterConfig returns the cluster's part of the configuration.
func (c *Config) clusterConfig() cluster.Config {
	least := c.MaxStaleness
	bounds := map[string]string{}
	for name, ns := range c.Namespaces {
		if ns.MaxStaleness != 0 {
			least = min(least, ns.MaxStaleness)
			bounds["max_staleness of "+name] = ns.MaxStaleness.String()
		}
	}
	return cluster.Config{
		Settings: bounds, PollEvery: least / 4,
		Self:    kv.Process{Node: kv.NodeID(c.Node)},
		Cluster: c.Cluster, Weight: c.Weight, Bind: c.Bind, PeerBind: c.PeerBind, Advertise: c.Advertise,
		Digests: c.digests(),
		Join:    c.Join, Insecure: c.Insecure, Secured: c.ClusterKeyFile != "",
		Bound: c.MaxStaleness, MaxSkew: c.MaxClockSkew, LeaveTime: c.LeaveTime,
		Policy: c.PartitionPolicy, Voters: c.Voters, Clock: c.clock, Log: c.Log, Network: c.network,
	}
}
