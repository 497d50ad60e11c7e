package sidecar

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Config describes a sidecar. The zero value works: one host, 256 MiB, the default
// socket. The yaml tags are the names in a configuration file (docs/CONFIG.md). A setting
// with the tag reload:"yes" takes effect with Apply, with all that is in it; the others
// need a restart. One with the tag answers:"yes" is compared with other hosts' (agreement.go).
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
	// AdminGroup is the group whose members administer the sidecar through the socket.
	// Like root and the user of the process they may FLUSH all namespaces, VERIFY, FORGET,
	// and ask for STATS of the cluster. They have every right in every namespace. Form: name or number. Default:
	// none.
	AdminGroup string `yaml:"admin_group" reload:"yes"`
	// Access says who may do what in a namespace, by the name of the namespace. Others
	// stands for all namespaces that are not named. Form: names of namespaces, or "*", each
	// with "read", "write" and "admin". Default: every user that can open the socket may
	// read and write. Bounds: up to 256 names, and 1024 entries of each list.
	Access map[string]Grants `yaml:"access" reload:"yes"`
	// Tokens are secrets that connections may show, by name. Form: names, each with its
	// "file". Default: none. Bounds: up to 256.
	Tokens map[string]Token `yaml:"tokens" reload:"yes"`
	// Memcached is where clients of memcached's text protocol are served. A Unix socket has SocketMode
	// and SocketGroup. Form: path, host:port, or
	// "off". Default: "off". Bounds: a loopback address; a path of up to 107 bytes.
	Memcached string `yaml:"memcached"`
	// MemcachedNamespace is the namespace of these clients' keys. Their flush_all reaches no other. Hosts
	// whose clients share keys have the same one. Default: "default".
	// Bounds: the name of a namespace.
	MemcachedNamespace string `yaml:"memcached_namespace" answers:"yes"`
	// MemcachedDelimiter makes the beginning of a key name its namespace, as in "pages:42" with ":". A key with
	// a ":" that names no configured
	// namespace is refused. Hosts whose clients share keys have the same one. Form: one
	// character. Default: none. Bounds: visible ASCII, and nothing that a namespace's name may have.
	MemcachedDelimiter string `yaml:"memcached_delimiter" answers:"yes"`
	// NoSocket serves the embedding program only.
	NoSocket bool `yaml:"-"`

	// L1Size bounds the copies of entries that other hosts own, in bytes. Default: 64MiB.
	// Bounds: 1MiB to 1TiB.
	L1Size Size `yaml:"l1_size"`
	// L2Size bounds the entries that this host owns and their index, in bytes. Default:
	// 256MiB. Bounds: 8MiB to 256GiB.
	L2Size Size `yaml:"l2_size"`
	// SharedSize is the memory that apps read hot values from, in bytes; "off" is none. It needs Linux.
	// Default: L2Size/8, 1MiB to 32MiB.
	// Bounds: 1MiB to 1GiB.
	SharedSize Size `yaml:"shared_size"`
	// MaxValue bounds a value, in bytes. Default: 8MiB, or L2Size/16 if that is less.
	// Bounds: 1B to 1GiB, at most L2Size/16.
	MaxValue Size `yaml:"max_value"`

	// KeepMemory keeps the entries over a restart. The memory is with systemd while no process runs. It needs
	// Linux, and a unit with FileDescriptorStoreMax=1. In a cluster set it on all hosts.
	KeepMemory bool `yaml:"keep_memory"`
	// Cold starts without the entries that were kept.
	Cold bool `yaml:"-"`
	// StrictOrigins makes Run and Apply fail if the server of an origin or a feed refuses what is
	// configured, or does not answer. Default: that is a state of the namespace (STATS, health).
	StrictOrigins bool `yaml:"-"`

	// BufferSize bounds the memory of all requests and answers under way, in bytes. Default: 128MiB, or four
	// times the longest request if that is
	// more. Bounds: 16MiB to 64GiB, at least four requests of MaxValue.
	BufferSize Size `yaml:"buffer_size"`

	// MaxNamespaces bounds the number of namespaces, configured ones included. Default: 256.
	// Bounds: 1 to 256.
	MaxNamespaces int `yaml:"max_namespaces"`
	// Namespaces are the namespaces with settings of their own. All others have the
	// defaults.
	Namespaces map[string]Namespace `yaml:"-" setting:"namespaces" reload:"yes"`

	// Feeds tell which rows have changed at an origin, so that their cached values end, by name. They
	// must be the same on all hosts. Default: none.
	Feeds map[string]Feed `yaml:"-" setting:"changes"`

	// MaxConnections bounds the connections of apps. Default: 16384. Bounds: 1 to 1048576.
	MaxConnections int `yaml:"max_connections" reload:"yes"`
	// RequestTimeout is the timeout of requests that bring none. Default: 1s. Bounds: 1ms to
	// 1h.
	RequestTimeout time.Duration `yaml:"request_timeout" reload:"yes"`

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
	// AloneOK lets this host be ready although other hosts should be there and none answers.
	AloneOK bool `yaml:"alone_ok" reload:"yes"`
	// Cluster is the name of the cluster. Sidecars of another cluster are refused. Default:
	// "cachesidecar". Bounds: 1 to 64 bytes, no blanks.
	Cluster string `yaml:"cluster"`
	// PartitionPolicy says what a side of a split network does. With "available" each side
	// goes on by itself. With "consistent" a side serves only if it reaches a majority of
	// Voters. The policy must be the same on all hosts. Form: "available" or "consistent".
	// Default: "available".
	PartitionPolicy string `yaml:"partition_policy" answers:"yes"`
	// Voters are the names of the nodes that vote under the policy "consistent". They must
	// be the same on all hosts. Form: list of names. Default: none. Bounds: 3 or 5.
	Voters []string `yaml:"voters" answers:"set"`
	// ClusterKeyFile is a file with the keys for all traffic between hosts, and the seed of the hash. All hosts
	// need the same file. It is read
	// again when it changes. Without it the addresses of this host and of Join must be
	// loopback addresses. Form: path. Default: none. Bounds: absolute, up to 64KiB.
	ClusterKeyFile string `yaml:"cluster_key_file"`
	// TLS are certificate files for the connections between hosts. Default: certificates
	// derived from the cluster key.
	TLS TLSFiles `yaml:"tls"`
	// Insecure allows other addresses than loopback without a cluster key. Traffic between hosts is then
	// neither encrypted nor authenticated. It also allows HTTP with
	// Pprof on such an address.
	Insecure bool `yaml:"insecure"`
	// Weight is this host's share of the keys, relative to other hosts. Default: L2Size in
	// MiB. Bounds: 1 to 4294967295.
	Weight uint32 `yaml:"weight" reload:"yes"`
	// AdaptiveWeight lowers the weight while this host is under pressure. Signs of it are processor,
	// memory, slow batches and waiting requests.
	AdaptiveWeight bool `yaml:"adaptive_weight"`
	// MaxStaleness bounds how long after a change an outdated value may be read. It must be
	// the same on all hosts. Default: 2s. Bounds: 500ms to 1m.
	MaxStaleness time.Duration `yaml:"max_staleness" answers:"yes"`
	// LeaveTime bounds how long this host, when it ends or is drained, waits for others to fetch its
	// entries. Default: 10s. Bounds: 1s to 1h.
	LeaveTime time.Duration `yaml:"leave_time" reload:"yes"`
	// MaxClockSkew bounds the difference between the wall clocks of two hosts. Default:
	// 500ms. Bounds: 1ms to 1m.
	MaxClockSkew time.Duration `yaml:"max_clock_skew"`

	// HTTP is the address on which health, metrics and the status page are served. Form:
	// host:port, or "off". Default: 127.0.0.1:7948, and "off" if embedded.
	HTTP string `yaml:"http"`
	// HTTPHosts are names under which HTTP may be reached, beside the name of this host,
	// localhost and IP addresses. Form: list of names. Default: none.
	HTTPHosts []string `yaml:"http_hosts" reload:"yes"`
	// HTTPTokenFile is a file with the token that all pages but health need. Health needs
	// none. Form: path. Default: none.
	HTTPTokenFile string `yaml:"http_token_file" reload:"yes"`
	// Pprof serves /debug/pprof on HTTP.
	Pprof bool `yaml:"pprof"`
	// Profiles are the pages that Pprof serves, and must be given with it:
	// http.DefaultServeMux in a program that imports net/http/pprof. The sidecar does not
	// import it, since it is large and adds its pages to the embedding program's
	// DefaultServeMux.
	Profiles http.Handler `yaml:"-"`

	// IgnoreMemoryLimit allows sizes that exceed the memory of the machine or of its cgroup.
	IgnoreMemoryLimit bool `yaml:"ignore_memory_limit" reload:"yes"`

	// Version is the version of the program, for HELLO and STATS.
	Version string `yaml:"-"`
	// Log takes the log. Default: nothing is logged.
	Log *slog.Logger `yaml:"-"`
	// Reload answers RELOAD: it reads the configuration from where the program has it, and
	// calls Apply. An error's text goes to the administrator who has asked. Default: RELOAD
	// is refused.
	Reload func(context.Context) (cachesidecar.Changes, error) `yaml:"-"`

	seed    uint64          // of the hash: from the key file; 0 without one
	clock   kv.Clock        // for tests; default: the clock of the machine
	network cluster.Network // for tests
	events  int             // length of the log, for tests; default invalidation.DefaultEvents
	passed  []*os.File      // by systemd, for tests

	readPatience time.Duration // how long a read waits for an owner, for tests; default 250 ms
}

// Grants lists the callers that may read, write and administer a namespace through the
// socket. Admin includes the rights of Write, and Write the rights of Read. Each entry
// is one of
//
//	user:NAME, user:1000, 1000   a user
//	group:NAME, group:100        the members of a group
//	token:NAME                   a connection that has shown this token of Config.Tokens
//	anyone                       every user that may open the socket
type Grants struct {
	Read  []string `yaml:"read"`
	Write []string `yaml:"write"`
	Admin []string `yaml:"admin"`
}

// Token is a secret that a connection may show in HELLO. It adds rights to the rights of
// the connection's user. It is meant for containers that share a user.
type Token struct {
	// File is the path of the file with the secret: one line of 16 to 256 bytes. Only
	// this process's user, its group and root may be able to read the file.
	File string `yaml:"file"`
}

// Others is the name in Config.Access of all namespaces without a line of their own.
const Others = "*"

// TLSFiles are the paths of certificate files in PEM. Give all three or none. They
// require a cluster key file.
type TLSFiles struct {
	// Cert is this host's certificate chain; the first names this node in a DNS name.
	// Form: path. Default: none. Bounds: absolute, up to 64KiB.
	Cert string `yaml:"cert"`
	// Key is the private key of Cert. Form: path. Default: none. Bounds: absolute, up
	// to 64KiB.
	Key string `yaml:"key"`
	// CA are the authorities whose certificates are accepted. Form: path. Default: none.
	// Bounds: absolute, up to 64KiB.
	CA string `yaml:"ca"`
}

// Feed is a feed of changes.
type Feed struct {
	// Source is where it comes from: the FeedConfig of package loader/postgres is one kind. Required.
	Source loader.FeedConfig `yaml:"-" answers:"yes"`
	// MaxLag bounds for how long a value is served that was loaded before its row changed; 0 is no bound.
	// While the feed is later, its namespaces serve and keep no loaded values. Form: time.
	// Default: 0. Bounds: at least four times MaxStaleness, up to 1h.
	MaxLag time.Duration `yaml:"max_lag" answers:"yes"`
}
