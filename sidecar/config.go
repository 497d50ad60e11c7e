package sidecar

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
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

// Config describes a sidecar. The zero value works: one host, 256 MiB, the default
// socket. The yaml tags are the names in a configuration file (docs/CONFIG.md).
type Config struct {
	// Node is the name of this sidecar, unique in the cluster. Default: the host name.
	// Bounds: 1 to 128 bytes, no blanks or control characters.
	Node string `yaml:"node"`

	// Socket is the path of the socket for apps. Default: in the first of /run/cachesidecar,
	// $XDG_RUNTIME_DIR/cachesidecar and /tmp/cachesidecar-$UID that this process can write
	// to. Form: path. Bounds: up to 107 bytes (103 on macOS).
	Socket string `yaml:"socket"`
	// SocketMode is the file mode of the socket. Default: 0660. Bounds: 0001 to 0777.
	SocketMode FileMode `yaml:"socket_mode"`
	// SocketGroup is the group of the socket. Form: name or number. Default: the group of
	// the process.
	SocketGroup string `yaml:"socket_group"`
	// AdminGroup is the group whose members administer the sidecar through the socket, like
	// root and the user of the process: FLUSH of all namespaces, VERIFY, FORGET, STATS of
	// the cluster. They have every right in every namespace. Form: name or number. Default:
	// none.
	AdminGroup string `yaml:"admin_group"`
	// Access says who may do what in a namespace, by the name of the namespace. Others
	// stands for all namespaces that are not named. Form: names of namespaces, or "*", each
	// with "read", "write" and "admin". Default: every user that can open the socket may
	// read and write. Bounds: up to 256 names, and 1024 entries of each list.
	Access map[string]Grants `yaml:"access"`
	// Tokens are secrets that connections may show, by name. Form: names, each with its
	// "file". Default: none. Bounds: up to 256.
	Tokens map[string]Token `yaml:"tokens"`
	// NoSocket serves the embedding program only.
	NoSocket bool `yaml:"-"`

	// L1Size bounds the copies of entries that other hosts own, in bytes. Default: 64MiB.
	// Bounds: 1MiB to 1TiB.
	L1Size Size `yaml:"l1_size"`
	// L2Size bounds the entries that this host owns and their index, in bytes. Default:
	// 256MiB. Bounds: 8MiB to 256GiB.
	L2Size Size `yaml:"l2_size"`
	// MaxValue bounds a value, in bytes. Default: 8MiB, or L2Size/16 if that is less.
	// Bounds: 1B to 1GiB, at most L2Size/16.
	MaxValue Size `yaml:"max_value"`

	// BufferSize bounds the memory of all requests and answers under way, of apps and of
	// other hosts, in bytes. Default: 128MiB, or four times the longest request if that is
	// more. Bounds: 16MiB to 64GiB, at least four requests of MaxValue.
	BufferSize Size `yaml:"buffer_size"`

	// MaxNamespaces bounds the number of namespaces, configured ones included. Default: 256.
	// Bounds: 1 to 256.
	MaxNamespaces int `yaml:"max_namespaces"`
	// Namespaces are the namespaces with settings of their own. All others have the
	// defaults.
	Namespaces map[string]Namespace `yaml:"-"`

	// MaxConnections bounds the connections of apps. Default: 16384. Bounds: 1 to 1048576.
	MaxConnections int `yaml:"max_connections"`
	// RequestTimeout is the timeout of requests that bring none. Default: 1s. Bounds: 1ms to
	// 1h.
	RequestTimeout time.Duration `yaml:"request_timeout"`

	// Bind is the address on which gossip listens for other sidecars. With "off" the sidecar
	// is alone. Form: host:port, or "off". Default: "off", or 127.0.0.1:7946 with Join.
	// Bounds: loopback, without a key.
	Bind string `yaml:"bind"`
	// PeerBind is the address on which requests of other sidecars are served. Form:
	// host:port. Default: the host of Bind, and the next port. Bounds: loopback, without a
	// key.
	PeerBind string `yaml:"peer_bind"`
	// Advertise is the address under which other hosts reach this one. Form: IP address.
	// Default: the address of Bind. Bounds: loopback, without a key.
	Advertise string `yaml:"advertise"`
	// Join are gossip addresses of other sidecars. A name may stand for several addresses.
	// Give the same addresses on all hosts. Form: list of host:port. Default: none. Bounds:
	// loopback, without a key.
	Join []string `yaml:"join"`
	// Cluster is the name of the cluster. Sidecars of another cluster are refused. Default:
	// "cachesidecar". Bounds: 1 to 64 bytes, no blanks.
	Cluster string `yaml:"cluster"`
	// PartitionPolicy says what a side of a split network does. With "available" each side
	// goes on by itself. With "consistent" a side serves only if it reaches a majority of
	// Voters. The policy must be the same on all hosts. Form: "available" or "consistent".
	// Default: "available".
	PartitionPolicy string `yaml:"partition_policy"`
	// Voters are the names of the nodes that vote under the policy "consistent". They must
	// be the same on all hosts. Form: list of names. Default: none. Bounds: 3 or 5.
	Voters []string `yaml:"voters"`
	// ClusterKeyFile is a file with the keys that encrypt and authenticate all traffic
	// between hosts, and with the seed of the hash. All hosts need the same file. It is read
	// again when it changes. Without it the addresses of this host and of Join must be
	// loopback addresses. Form: path. Default: none. Bounds: a whole path, up to 64KiB.
	ClusterKeyFile string `yaml:"cluster_key_file"`
	// TLS are certificate files for the connections between hosts. Default: certificates
	// derived from the cluster key.
	TLS TLSFiles `yaml:"tls"`
	// Insecure allows addresses other than loopback without a cluster key, although traffic
	// between hosts is then neither encrypted nor authenticated. It also allows HTTP with
	// Pprof on such an address.
	Insecure bool `yaml:"insecure"`
	// Weight is this host's share of the keys, relative to other hosts. Default: L2Size in
	// MiB. Bounds: 1 to 4294967295.
	Weight uint32 `yaml:"weight"`
	// AdaptiveWeight lowers the weight in small steps while this host is under pressure
	// (processor, memory, slow batches, waiting requests), and raises it again afterwards.
	AdaptiveWeight bool `yaml:"adaptive_weight"`
	// MaxStaleness bounds how long after a change an outdated value may be read. It must be
	// the same on all hosts. Default: 2s. Bounds: 500ms to 1m.
	MaxStaleness time.Duration `yaml:"max_staleness"`
	// MaxClockSkew bounds the difference between the wall clocks of two hosts. Default:
	// 500ms. Bounds: 1ms to 1m.
	MaxClockSkew time.Duration `yaml:"max_clock_skew"`

	// HTTP is the address on which health and metrics are served. Form: host:port, or "off".
	// Default: 127.0.0.1:7948, and "off" if embedded.
	HTTP string `yaml:"http"`
	// HTTPHosts are names under which HTTP may be reached, beside the name of this host,
	// localhost and IP addresses. Form: list of names. Default: none.
	HTTPHosts []string `yaml:"http_hosts"`
	// HTTPTokenFile is a file with the token that metrics and profiles need. Health needs
	// none. Form: path. Default: none.
	HTTPTokenFile string `yaml:"http_token_file"`
	// Pprof serves /debug/pprof on HTTP.
	Pprof bool `yaml:"pprof"`
	// Profiles are the pages that Pprof serves, and must be given with it:
	// http.DefaultServeMux in a program that imports net/http/pprof. The sidecar does not import it, since it is large and adds its pages
	// to the embedding program's DefaultServeMux.
	Profiles http.Handler `yaml:"-"`

	// IgnoreMemoryLimit allows sizes that exceed the memory of the machine or of its cgroup.
	IgnoreMemoryLimit bool `yaml:"ignore_memory_limit"`

	// Version is the version of the program, for HELLO and STATS.
	Version string `yaml:"-"`
	// Log takes the log. Default: nothing is logged.
	Log     *slog.Logger    `yaml:"-"`
	seed    uint64          // of the hash: from the key file; 0 without one
	clock   kv.Clock        // for tests; default: the clock of the machine
	network cluster.Network // for tests
	events  int             // length of the log, for tests; default invalidation.DefaultEvents
}

// Defaults, and the bounds of what is configured.
const (
	DefaultNamespace  = "default"
	DefaultL1Size     = 64 << 20
	DefaultL2Size     = 256 << 20
	DefaultTimeout    = time.Second
	DefaultBufferSize = 128 << 20
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
	if c.clock == nil {
		c.clock = kv.NewSystemClock()
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
		Clock: c.clock, Log: c.Log, Network: c.network,
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
