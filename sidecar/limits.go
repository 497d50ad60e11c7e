package sidecar

import (
	"fmt"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// fewConnections is how many connections of apps there must be memory for, if max_connections is
// not lower.
const fewConnections = 1000

// sizes returns what the memory that this configuration needs depends on.
func (c *Config) sizes() memorySizes {
	s := memorySizes{
		l1: int64(c.L1Size), l2: int64(c.L2Size), buffers: int64(c.BufferSize), shared: int64(max(c.SharedSize, 0)),
		feeds: len(c.Feeds), connections: c.MaxConnections, tcp: c.Memcached != "" && !isPath(c.Memcached),
	}
	for _, ns := range c.Namespaces {
		if ns.ExistingKeys == nil {
			continue
		}
		if size, err := ns.ExistingKeys.settings().Size(); err == nil {
			s.filters += size
		}
	}
	return s
}

// memoryLimit returns the lower of the machine's memory and the cgroup's limit, in bytes, with
// the words for it. It returns zero if neither is known.
func memoryLimit() (bytes int64, what string) {
	const most = 1 << 62 // a limit above it is none
	if n, err := memlimit.FromSystem(); err == nil && n < most {
		bytes, what = int64(n), "the machine has"
	}
	if n, err := memlimit.FromCgroup(); err == nil && n < most && (bytes == 0 || int64(n) < bytes) {
		bytes, what = int64(n), "the cgroup allows"
	}
	return bytes, what
}

// withMemory returns the sizes with as many connections as the machine has memory for, before
// anything is mapped: the kernel hands out more address space than it has memory, and kills a
// process that then uses it. An error says that even few connections are too many.
func (c *Config) withMemory() (memorySizes, error) {
	s := c.sizes()
	if c.IgnoreMemoryLimit {
		return s, nil
	}
	have, what := memoryLimit()
	if have == 0 {
		return s, nil
	}
	wanted := s.connections
	if s.connections = s.fit(have, fewConnections); s.connections > 0 || wanted <= 0 {
		return s, nil
	}
	s.connections = min(wanted, fewConnections)
	return s, fmt.Errorf("l1_size %s, l2_size %s, buffer_size %s, shared_size %s, key filters of %s, %d feeds and "+
		"%d connections need %s, but %s %s: lower the sizes, or set ignore_memory_limit",
		c.L1Size, c.L2Size, c.BufferSize, max(c.SharedSize, 0), Size(s.filters), s.feeds, s.connections,
		Size(s.need().total()), what, Size(have))
}

// checkMemory compares the configured sizes with the available memory.
func checkMemory(c Config) error {
	_, err := c.withMemory()
	return err
}

// connections returns how many connections of apps there may be.
func (c *Config) connections() int {
	s, _ := c.withMemory()
	return s.connections
}

// Memory returns what the configuration needs, in bytes: a limit of the process's memory.
func (c Config) Memory() (Size, error) {
	c, err := c.withDefaults()
	s := c.sizes()
	return Size(s.need().total()), err
}

// shareFiles shares out the descriptors that this process may have.
func shareFiles(c *Config, limit uint64) fileShares {
	w := filesWanted{apps: c.connections(), http: c.HTTP != "", peers: c.Bind != ""}
	if c.SharedSize > 0 {
		w.passed = session.MaxDescriptors
	}
	for _, ns := range c.Namespaces {
		if ns.Origin != nil {
			w.origins += ns.Origin.Descriptors()
		}
	}
	return w.share(limit)
}

// appLimits returns the limits of the connections of apps, of the socket and of the memcached
// endpoint each. Both together have the places that newPlaces returns.
func appLimits(c *Config, maxConns int, b *quota.Budget) server.Limits {
	return server.Limits{
		MaxConns:   maxConns,
		SendBuffer: sendBuffer,
		NewRate:    max(server.PerProcessor(newConnections), leastConnections),
		MaxFrame:   int(c.MaxValue) + wire.FrameSlack,
		Budget:     b,
	}
}

// newConnections is how many connections of one user are begun each second, for each
// processor that Go uses, and at least. The others wait, and do not delay other users.
const (
	newConnections   = 250
	leastConnections = 750
)

// newBudget returns what all connections share.
func newBudget(c *Config, files *fileShares) *quota.Budget {
	b := quota.NewBudget(int64(c.BufferSize))
	b.SetTotals([quota.Resources]int64{
		quota.LeaseTokens: engine.MaxLeases,
		quota.Watches:     engine.MaxWatches,
		quota.Waiting:     session.MaxWaiting,
		quota.Namespaces:  int64(c.MaxNamespaces - len(c.Namespaces)),
		quota.Connections: int64(files.apps),
		quota.Flushes:     namespaces.MaxFlushed,
		quota.Descriptors: int64(files.passed),
	})
	return b
}
