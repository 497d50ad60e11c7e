package sidecar

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/verify"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Config says what a sidecar is to be. The zero value works: one host, 256 MiB,
// the default socket.
type Config struct {
	// Node is this sidecar's name, unique in the cluster. Default: the host name.
	Node string `yaml:"node"`

	// Socket is where apps connect. Default: the first folder that can be
	// written of /run/cachesidecar, $XDG_RUNTIME_DIR/cachesidecar and
	// /tmp/cachesidecar-$UID.
	Socket string `yaml:"socket"`
	// SocketMode is the socket's file mode. Default 0660.
	SocketMode FileMode `yaml:"socket_mode"`
	// SocketGroup is the socket's group, by name or number. Default: the process's.
	SocketGroup string `yaml:"socket_group"`
	// AdminGroup is the group, by name or number, whose members administer the
	// sidecar as a whole through the socket, as root and the process's user do:
	// FLUSH of all namespaces, VERIFY, FORGET and STATS of the cluster. They have
	// every right in every namespace too. Default: none.
	AdminGroup string `yaml:"admin_group"`
	// Access says who may do what in a namespace, or with Others in those that it
	// does not name. Default: who may open the socket may read and write.
	Access map[string]Grants `yaml:"access"`
	// Tokens are secrets that connections may show, by name.
	Tokens map[string]Token `yaml:"tokens"`
	// NoSocket serves the embedding program alone.
	NoSocket bool `yaml:"-"`

	// L1Size bounds the hot copies of what other hosts own, in bytes. Default
	// 64 MiB.
	L1Size Size `yaml:"l1_size"`
	// L2Size bounds this host's share of the cluster's keys, in bytes, index and
	// all. Default 256 MiB, at least 8 MiB.
	L2Size Size `yaml:"l2_size"`
	// MaxValue is the longest value, in bytes. Default 8 MiB; at most 1/16 of
	// L2Size.
	MaxValue Size `yaml:"max_value"`

	// BufferSize bounds the memory of all requests and answers under way, of apps
	// and of other hosts, in bytes. Default 128 MiB, or four times the longest
	// request where that is more; at least the latter, and 16 MiB.
	BufferSize Size `yaml:"buffer_size"`

	// MaxNamespaces bounds the namespaces, configured ones included. Default and
	// most: 256.
	MaxNamespaces int `yaml:"max_namespaces"`
	// Namespaces have settings of their own. The others take the defaults.
	Namespaces map[string]Namespace `yaml:"-"`

	// MaxConnections bounds the apps' connections. Default 16,384.
	MaxConnections int `yaml:"max_connections"`
	// RequestTimeout is for requests that bring none. Default 1 s.
	RequestTimeout time.Duration `yaml:"request_timeout"`

	// Bind is where this host's gossip listens for other sidecars, host:port;
	// "off" is none: the sidecar is alone. Default off, or 127.0.0.1:7946 where
	// Join is given.
	Bind string `yaml:"bind"`
	// PeerBind is where other sidecars' requests are served, host:port. Default:
	// the host of Bind, and the port after its.
	PeerBind string `yaml:"peer_bind"`
	// Advertise is the IP address that other hosts reach this one under. Default:
	// that of Bind.
	Advertise string `yaml:"advertise"`
	// Join are addresses of other sidecars' gossip, host:port; a name may stand
	// for several. Give the same ones on all hosts.
	Join []string `yaml:"join"`
	// Cluster is the cluster's name. Sidecars of another one are refused.
	// Default "cachesidecar".
	Cluster string `yaml:"cluster"`
	// PartitionPolicy is what a side of a split network does: "available", the
	// default, goes on, each side by itself; "consistent" serves only where it
	// reaches a majority of Voters. It must be the same on all hosts.
	PartitionPolicy string `yaml:"partition_policy"`
	// Voters are the names of 3 or 5 nodes, under policy consistent; the same ones
	// on all hosts.
	Voters []string `yaml:"voters"`
	// ClusterKeyFile has the keys that encrypt and authenticate all that passes
	// between hosts, and the hash's seed: the same file on all hosts, read again when
	// it changes. Without it the addresses of this host and of Join are loopback's.
	ClusterKeyFile string `yaml:"cluster_key_file"`
	// TLS are certificate files to use between hosts in place of those that come of
	// the cluster key.
	TLS TLSFiles `yaml:"tls"`
	// Insecure lets addresses be other than loopback without a cluster key, though
	// what passes between hosts is neither encrypted nor authenticated, and HTTP
	// with Pprof. With a key it is of no other effect.
	Insecure bool `yaml:"insecure"`
	// Weight is this host's part of the keys, relative to others'. Default:
	// L2Size in MiB.
	Weight uint32 `yaml:"weight"`
	// AdaptiveWeight lowers the weight in small steps while this host is under
	// pressure (processor, memory, slow batches, requests that wait), and raises
	// it again. Default: it stays.
	AdaptiveWeight bool `yaml:"adaptive_weight"`
	// MaxStaleness is how far behind a copy may be. It must be the same on all
	// hosts. Default 2 s, at least 500 ms.
	MaxStaleness time.Duration `yaml:"max_staleness"`
	// MaxClockSkew is how far another host's wall clock may differ. Default
	// 500 ms.
	MaxClockSkew time.Duration `yaml:"max_clock_skew"`

	// HTTP is where health and metrics are served, host:port; "off" serves
	// none. Default off when embedded, 127.0.0.1:7948 from the command.
	HTTP string `yaml:"http"`
	// HTTPHosts are names that HTTP may be asked under, beside this host's own,
	// localhost and IP addresses.
	HTTPHosts []string `yaml:"http_hosts"`
	// HTTPTokenFile is a file with the token that metrics and profiles need. Health
	// needs none. Default: no token.
	HTTPTokenFile string `yaml:"http_token_file"`
	// Pprof serves /debug/pprof on HTTP too.
	Pprof bool `yaml:"pprof"`

	// IgnoreMemoryLimit starts even where the sizes exceed what the machine or
	// its cgroup has.
	IgnoreMemoryLimit bool `yaml:"ignore_memory_limit"`

	// Version is what the program calls itself in HELLO and stats.
	Version string `yaml:"-"`
	// Log takes what happens. Default: nothing is logged.
	Log *slog.Logger `yaml:"-"`
	// Clock is for tests. Default: the machine's.
	Clock kv.Clock `yaml:"-"`

	seed    uint64          // of the hash: the key file's; 0 without one
	network cluster.Network // for tests
	events  int             // of the log, for tests. Default: invalidation.DefaultEvents
}

// Defaults, and the bounds of what is configured.
const (
	DefaultNamespace  = namespaces.Default
	DefaultL1Size     = 64 << 20
	DefaultL2Size     = 256 << 20
	DefaultTimeout    = time.Second
	DefaultBufferSize = rpc.DefaultBudget
	overheadBytes     = 32 << 20 // connections, the Go runtime
	maxConnections    = 1 << 20
)

// unseen says whether other hosts would take no name with a character: see package
// gossip.
func unseen(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) }

// withDefaults returns a checked copy with every field set.
func (c Config) withDefaults() (Config, error) {
	if c.Node == "" {
		name, err := os.Hostname()
		if err != nil {
			return c, fmt.Errorf("node: no host name to take (%w): give a name", err)
		}
		c.Node = name
	}
	if len(c.Node) > 128 || !utf8.ValidString(c.Node) || strings.ContainsFunc(c.Node, unseen) {
		return c, fmt.Errorf("node %q: give 1 to 128 bytes without blanks and control characters", c.Node)
	}
	if c.SocketMode&^0o777 != 0 {
		return c, fmt.Errorf("socket_mode %o: give permission bits only, such as 0660", uint32(c.SocketMode))
	}
	var err error
	if c.L1Size, err = size("l1_size", c.L1Size, DefaultL1Size, 1<<20, 1<<40); err != nil {
		return c, err
	}
	if c.L2Size, err = size("l2_size", c.L2Size, DefaultL2Size, 8<<20, 256<<30); err != nil {
		return c, err
	}
	if c.MaxValue, err = size("max_value", c.MaxValue, min(8<<20, c.L2Size/16), 1, 1<<30); err != nil {
		return c, err
	}
	if c.MaxValue > c.L2Size/16 {
		return c, fmt.Errorf("max_value %s is above 1/16 of l2_size %s: raise l2_size to %s, or lower max_value to %s",
			c.MaxValue, c.L2Size, c.MaxValue*16, c.L2Size/16)
	}
	longest := 4 * (c.MaxValue + wire.FrameSlack)
	if c.BufferSize, err = size("buffer_size", c.BufferSize, max(DefaultBufferSize, longest), 16<<20, 64<<30); err != nil {
		return c, err
	}
	if c.BufferSize < longest {
		return c, fmt.Errorf("buffer_size %s is below four requests of max_value %s: raise it to %s, or lower max_value", c.BufferSize, c.MaxValue, longest)
	}
	if c.MaxNamespaces == 0 {
		c.MaxNamespaces = kv.MaxNamespaces
	}
	if c.MaxNamespaces < 1 || c.MaxNamespaces > kv.MaxNamespaces {
		return c, fmt.Errorf("max_namespaces %d: give 1 to %d", c.MaxNamespaces, kv.MaxNamespaces)
	}
	names := map[string]Namespace{DefaultNamespace: {}}
	for name, ns := range c.Namespaces {
		if name == verify.Namespace {
			return c, fmt.Errorf("namespace %s is reserved: use another name", name)
		}
		if !kv.ValidNamespace(name) {
			return c, fmt.Errorf("namespace %q: a name is 1 to %d of a-z, 0-9, _, . and -", name, kv.MaxNamespaceLen)
		}
		if err := ns.check(c.L2Size); err != nil {
			return c, fmt.Errorf("namespace %s: %w", name, err)
		}
		names[name] = ns
	}
	if len(names) > c.MaxNamespaces {
		return c, fmt.Errorf("%d namespaces are configured (%q is one), max_namespaces is %d: raise it or configure fewer", len(names), DefaultNamespace, c.MaxNamespaces)
	}
	c.Namespaces = names
	c.MaxConnections = cmp.Or(c.MaxConnections, rpc.DefaultLimits.MaxConns)
	if c.MaxConnections < 0 || c.MaxConnections > maxConnections {
		return c, fmt.Errorf("max_connections %d: give 1 to %d", c.MaxConnections, maxConnections)
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = rpc.DefaultLimits.MaxConns
	}
	if c.RequestTimeout == 0 {
		c.RequestTimeout = DefaultTimeout
	}
	if c.RequestTimeout < time.Millisecond || c.RequestTimeout > wire.MaxTimeout*time.Millisecond {
		return c, fmt.Errorf("request_timeout %v: give 1ms to 1h", c.RequestTimeout)
	}
	if c, err = c.clusterDefaults(); err != nil {
		return c, err
	}
	if c.HTTP == "off" {
		c.HTTP = ""
	}
	if err := c.checkHTTP(); err != nil {
		return c, err
	}
	if c.Version == "" {
		c.Version = "embedded"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = kv.NewSystemClock()
	}
	return c, nil
}

// clusterDefaults sets and checks what concerns other hosts.
func (c Config) clusterDefaults() (Config, error) {
	switch c.Bind {
	case "off":
		c.Bind = ""
		if len(c.Join) > 0 {
			return c, errors.New("join is given and bind is off: leave one of them out")
		}
	case "":
		if len(c.Join) > 0 {
			c.Bind = defaultBind
		}
	}
	c.Cluster = cmp.Or(c.Cluster, cluster.DefaultCluster)
	c.PartitionPolicy = cmp.Or(c.PartitionPolicy, cluster.Available)
	c.MaxStaleness = cmp.Or(c.MaxStaleness, cluster.DefaultBound)
	c.MaxClockSkew = cmp.Or(c.MaxClockSkew, cluster.DefaultMaxSkew)
	c.Weight = cmp.Or(c.Weight, cluster.WeightOf(int64(c.L2Size)))
	if c.MaxStaleness < cluster.MinBound || c.MaxStaleness > maxBound {
		return c, fmt.Errorf("max_staleness %v: give %v to %v", c.MaxStaleness, cluster.MinBound, maxBound)
	}
	for name, ns := range c.Namespaces {
		if d := ns.MaxStaleness; d != 0 && (d < minNamespaceBound || d > c.MaxStaleness) {
			return c, fmt.Errorf("namespace %s: max_staleness %v: give %v to %v, the sidecar's own", name, d, minNamespaceBound, c.MaxStaleness)
		}
	}
	if c.MaxClockSkew < time.Millisecond || c.MaxClockSkew > time.Minute {
		return c, fmt.Errorf("max_clock_skew %v: give 1ms to 1m", c.MaxClockSkew)
	}
	if len(c.Cluster) > maxClusterName || strings.ContainsAny(c.Cluster, " \t\r\n\x00") {
		return c, fmt.Errorf("cluster %q: give 1 to %d bytes without blanks", c.Cluster, maxClusterName)
	}
	if c.Bind != "" && c.PeerBind == "" {
		host, port, err := net.SplitHostPort(c.Bind)
		n, e := strconv.ParseUint(port, 10, 16)
		if err = errors.Join(err, e); err != nil {
			return c, fmt.Errorf("bind %q: give host:port, such as %s (%w)", c.Bind, defaultBind, err)
		}
		if n > 0 {
			n++
		}
		c.PeerBind = net.JoinHostPort(host, strconv.FormatUint(n, 10))
	}
	if err := c.paths().Check(); err != nil {
		return c, err
	}
	return c, c.clusterConfig().Check()
}

// loopback says whether host:port is reached from this host alone.
func loopback(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// clusterConfig is the cluster's part of the configuration.
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
		Join: c.Join, Insecure: c.Insecure, Secured: c.ClusterKeyFile != "", Bound: c.MaxStaleness, MaxSkew: c.MaxClockSkew,
		Policy: c.PartitionPolicy, Voters: c.Voters,
		Clock: c.Clock, Log: c.Log, Network: c.network,
	}
}

const (
	defaultBind = "127.0.0.1:7946"
	maxBound    = time.Minute

	minNamespaceBound = 200 * time.Millisecond

	maxClusterName = 64
)

// Check validates a configuration, the files that it names, and that the machine
// has the memory. It asks no origin.
func (c Config) Check() error {
	c, err := c.withDefaults()
	if err != nil {
		return err
	}
	if _, err := c.credentials(); err != nil {
		return err
	}
	if _, err := c.rules(); err != nil {
		return err
	}
	for name, ns := range c.Namespaces {
		o, err := namespaces.OpenOrigin(name, ns.spec(), int(c.MaxValue), c.Log)
		if err != nil {
			return err
		}
		if o != nil {
			if err := o.Close(); err != nil {
				return err
			}
		}
	}
	return checkMemory(c)
}

func size(name string, v, def, least, most Size) (Size, error) {
	if v == 0 {
		v = def
	}
	if v < least || v > most {
		return v, fmt.Errorf("%s %s: give %s to %s", name, v, least, most)
	}
	return v, nil
}

// Size is a number of bytes. Its text has a unit: 64MiB, 1GiB, 500kB; a plain
// number is bytes.
type Size int64

func (s Size) String() string {
	if s < 0 {
		return strconv.FormatInt(int64(s), 10) + " B"
	}
	return humanize.IBytes(uint64(s))
}

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	t := strings.TrimSpace(string(text))
	if strings.HasPrefix(t, "-") {
		return fmt.Errorf("size %q is negative", t)
	}
	n, err := humanize.ParseBytes(t)
	if err != nil || n > 1<<62 {
		return fmt.Errorf("size %q: give a number and a unit, such as 64MiB or 1GiB", t)
	}
	*s = Size(n)
	return nil
}

// Set reads a size; with it a *Size is a flag.Value.
func (s *Size) Set(text string) error { return s.UnmarshalText([]byte(text)) }

// FileMode is permission bits. Its text is octal: 0660.
type FileMode fs.FileMode

func (m FileMode) String() string { return fmt.Sprintf("%04o", uint32(m)) }

// UnmarshalText reads a mode.
func (m *FileMode) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 8, 32)
	if err != nil || n > 0o777 {
		return fmt.Errorf("mode %q: give octal permission bits, such as 0660", text)
	}
	*m = FileMode(n)
	return nil
}

// Set reads a mode; with it a *FileMode is a flag.Value.
func (m *FileMode) Set(text string) error { return m.UnmarshalText([]byte(text)) }
