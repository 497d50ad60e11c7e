package sidecar

import (
	"fmt"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// checkMemory compares the configured sizes with the available memory, before anything is
// mapped. The kernel hands out more address space than it has memory, and kills a process
// that then uses it.
func checkMemory(c Config) error {
	have, what := memoryLimit()
	need := c.L1Size + c.L2Size + c.BufferSize + overheadBytes
	if c.IgnoreMemoryLimit || have == 0 || need <= have {
		return nil
	}
	return fmt.Errorf("l1_size %s + l2_size %s + buffer_size %s + %s for the runtime = %s, but %s %s: lower the sizes, or set ignore_memory_limit",
		c.L1Size, c.L2Size, c.BufferSize, Size(overheadBytes), need, what, have)
}

// memoryLimit returns the lower of the machine's memory and the cgroup's limit, in bytes,
// with the words for it. It returns zero if neither is known.
func memoryLimit() (Size, string) {
	limit, what := Size(0), ""
	if n, err := memlimit.FromSystem(); err == nil && n < 1<<62 {
		limit, what = Size(n), "the machine has"
	}
	if n, err := memlimit.FromCgroup(); err == nil && n < 1<<62 && (limit == 0 || Size(n) < limit) {
		limit, what = Size(n), "the cgroup allows"
	}
	return limit, what
}

// HeapLimit returns a limit in bytes for the memory of Go's runtime
// (debug.SetMemoryLimit). The limit suits a process that only runs this sidecar: it is
// more than the sidecar ever needs, with room for garbage, as far as the machine has that
// memory. L2 is not in the runtime's memory.
func (s *Sidecar) HeapLimit() int64 {
	const copies, connection, rest = 2, 6 << 10, 96 << 20
	c := s.cfg
	limit := copies*c.L1Size + c.BufferSize + connection*Size(c.MaxConnections) + rest
	for _, k := range s.engine.Names.KeyFilters {
		if k != nil {
			limit += copies * Size(k.Filter.Size())
		}
	}
	if have, _ := memoryLimit(); have > 0 && !c.IgnoreMemoryLimit {
		limit = min(limit, have-c.L2Size)
	}
	return int64(limit)
}
