package attacks

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// cage is a cgroup with a limit of memory: what a unit's MemoryMax or a container's limit is.
type cage struct {
	dir   string
	limit int64
	old   bool // version 1 of cgroups
}

const cgroups = "/sys/fs/cgroup"

// cages counts the cages of this process, to name them.
var cages atomic.Int64

// newCage makes a cage, which is removed when the test keeps ends. Without root there is none.
func newCage(t, keeps testing.TB, limit int64) *cage {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	parent, old := parentOfCages()
	c := &cage{filepath.Join(parent, fmt.Sprintf("csattack-%d-%d", os.Getpid(), cages.Add(1))), limit, old}
	if err := c.make(); err != nil {
		testenv.Needs(t, fmt.Sprintf("no cgroup with a limit of memory can be made (%v): "+
			"run as root, where the memory controller is", err))
	}
	keeps.Cleanup(func() { _ = os.Remove(c.dir) }) // its process has ended
	return c
}

// parentOfCages returns where cgroups with a limit of memory can be made. Version 2 allows them
// only below a group without processes: one of those above this process's own.
func parentOfCages() (dir string, old bool) {
	if _, err := os.Stat(cgroups + "/cgroup.controllers"); err != nil {
		return cgroups + "/memory", true
	}
	text, _ := os.ReadFile("/proc/self/cgroup")
	_, own, _ := strings.Cut(strings.TrimSpace(string(text)), "0::")
	for own != "/" && own != "." && own != "" {
		own = filepath.Dir(own)
		given, _ := os.ReadFile(filepath.Join(cgroups, own, "cgroup.subtree_control"))
		if strings.Contains(string(given), "memory") {
			return filepath.Join(cgroups, own), false
		}
	}
	_ = os.WriteFile(cgroups+"/cgroup.subtree_control", []byte("+memory"), 0) // the machine's own root
	return cgroups, false
}

func (c *cage) make() error {
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		return err
	}
	if !c.old {
		return errors.Join(c.set("memory.max", c.limit), c.set("memory.swap.max", 0))
	}
	// Version 1 counts buffers of TCP apart, and only if they have a limit.
	err := errors.Join(c.set("memory.limit_in_bytes", c.limit), c.set("memory.kmem.tcp.limit_in_bytes", c.limit))
	_ = c.set("memory.memsw.limit_in_bytes", c.limit) // where swap is counted
	return err
}

func (c *cage) set(file string, n int64) error {
	return os.WriteFile(filepath.Join(c.dir, file), strconv.AppendInt(nil, n, 10), 0)
}

func (c *cage) read(file string) int64 {
	b, _ := os.ReadFile(filepath.Join(c.dir, file))
	n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n
}

// prefix returns the words that execute a command in the cage.
func (c *cage) prefix() []string {
	return []string{"sh", "-c", `echo $$ >"$0/cgroup.procs" && exec "$@"`, c.dir}
}

// used returns the memory that is charged to the cage.
func (c *cage) used() int64 {
	if c.old {
		return c.read("memory.usage_in_bytes") + c.read("memory.kmem.tcp.usage_in_bytes")
	}
	return c.read("memory.current")
}
