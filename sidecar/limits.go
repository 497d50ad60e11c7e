package sidecar

import (
	"fmt"

	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/machine"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/places"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// overheadBytes is the memory of connections and of Go's runtime.
const overheadBytes = 32 << 20

// checkMemory compares the configured sizes with the available memory, before anything is
// mapped. The kernel hands out more address space than it has memory, and kills a process
// that then uses it.
func checkMemory(c Config) error {
	have, what := machine.Memory()
	shared := max(c.SharedSize, 0)
	need := c.L1Size + c.L2Size + c.BufferSize + shared + overheadBytes
	if c.IgnoreMemoryLimit || have == 0 || int64(need) <= have {
		return nil
	}
	return fmt.Errorf("l1_size %s + l2_size %s + buffer_size %s + shared_size %s + %s for the runtime = %s, "+
		"but %s %s: lower the sizes, or set ignore_memory_limit",
		c.L1Size, c.L2Size, c.BufferSize, shared, Size(overheadBytes), need, what, Size(have))
}

// HeapLimit returns a limit in bytes for the memory of Go's runtime
// (debug.SetMemoryLimit). The limit suits a process that only runs this sidecar: it is
// more than the sidecar ever needs, with room for garbage, as far as the machine has that
// memory. L2 is not in the runtime's memory.
func (s *Sidecar) HeapLimit() int64 {
	const copies, connection, rest = 2, 6 << 10, 96 << 20
	s.applying.Lock()
	c := s.present
	s.applying.Unlock()
	limit := copies*c.L1Size + c.BufferSize + connection*Size(c.MaxConnections) + rest
	for k := range s.engine.Names.KeyFilters() {
		limit += copies * Size(k.Filter.Size())
	}
	if have, _ := machine.Memory(); have > 0 && !c.IgnoreMemoryLimit {
		limit = min(limit, Size(have)-c.L2Size-max(c.SharedSize, 0))
	}
	return int64(limit)
}

// shareFiles shares out the descriptors that this process may have.
func shareFiles(c *Config, limit uint64) machine.Files {
	w := machine.FilesWanted{Apps: c.MaxConnections, Doors: 1, HTTP: c.HTTP != "", Peers: c.Bind != ""}
	if c.SharedSize > 0 {
		w.Passed = session.MaxDescriptors
	}
	if c.Memcached != "" {
		w.Doors = 2
	}
	for _, ns := range c.Namespaces {
		if ns.Origin != nil {
			w.Origins += ns.Origin.Descriptors()
		}
	}
	return machine.ShareFiles(limit, w)
}

// appLimits returns the limits of the connections of apps, of the socket and of the memcached
// endpoint each.
func appLimits(c *Config, maxConns int, b *rpc.Budget) rpc.Limits {
	return rpc.Limits{
		MaxConns: maxConns,
		NewRate:  max(rpc.PerProcessor(newConnections), leastConnections),
		MaxFrame: int(c.MaxValue) + wire.FrameSlack,
		Loop:     rpc.LoopPays(),
		Budget:   b,
	}
}

// newConnections is how many connections of one user are begun each second, for each
// processor that Go uses, and at least. The others wait, and do not delay other users.
const (
	newConnections   = 250
	leastConnections = 750
)

// newPlaces returns the places that all connections share.
func newPlaces(c *Config, files *machine.Files) *places.Table {
	return places.New([places.Resources]int64{
		places.LeaseTokens: engine.MaxLeases,
		places.Watches:     engine.MaxWatches,
		places.Waiting:     session.MaxSlow,
		places.Names:       int64(c.MaxNamespaces - len(c.Namespaces)),
		places.Connections: int64(c.MaxConnections),
		places.Flushes:     namespaces.MaxFlushed,
		places.Descriptors: int64(files.Passed),
	})
}
