package sidecar

import (
	"errors"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/internal/testhook"
)

// Kept memory between systemd and the engine: internal/engine/keep.go decides what is accepted, and
// l2/segment/keep.go has the bytes.

// checkKeep checks keep_memory.
func (c *Config) checkKeep() error {
	var wrong settings.Problems
	switch {
	case !c.KeepMemory:
	case runtime.GOOS != "linux":
		wrong.Addf("keep_memory", "needs Linux: leave it out")
	case c.NoSocket && c.passed == nil:
		wrong.Addf("keep_memory", "needs systemd, which does not run an embedded sidecar: leave it out")
	}
	return wrong.Err()
}

// keptMemory is the memory that systemd keeps.
type keptMemory struct {
	had  bool     // systemd has passed one on
	file *os.File // that one, if it is to be taken over
	fed  []string // namespaces of feeds
}

// Why a process takes nothing over that systemd has kept, or could have kept.
const (
	nothingKept = "systemd has passed no memory on: it is the first start of the unit, or FileDescriptorStoreMax= is 0"
	coldAsked   = "--cold is given"
)

// takeMemory takes the memory out of what systemd has passed on, and returns the rest.
func (k *keptMemory) takeMemory(c *Config, passed []*os.File) (rest []*os.File) {
	for _, f := range passed {
		switch {
		case f.Name() != testhook.KeptName:
			rest = append(rest, f)
		case k.file == nil && c.KeepMemory && !c.Cold:
			k.had, k.file = true, f
		default:
			k.had = true
			engine.Decline(f)
		}
	}
	return rest
}

// config returns what the engine needs, or nil.
func (k *keptMemory) config(c *Config) *engine.Keep {
	if !c.KeepMemory {
		return nil
	}
	keep := &engine.Keep{File: k.file, Why: nothingKept, Boot: kv.BootClockID(), Fed: k.fed}
	if k.had && c.Cold {
		keep.Why = coldAsked
	}
	return keep
}

// keep gives the memory to systemd, and says what was kept.
func (k *keptMemory) keep(e *engine.Engine, c *Config) {
	log, tell := c.Log, tellSystemd
	if c.passed != nil {
		tell = func(string, ...int) error { return nil }
	}
	stats := e.Kept()
	taken := stats != nil && stats.Cold == ""
	if k.had && !taken {
		if err := tell("FDSTOREREMOVE=1\nFDNAME=" + testhook.KeptName); err != nil {
			log.Warn("systemd keeps memory that is of no use: stop the unit, and start it again", "error", err)
		}
	}
	if stats == nil {
		return
	}
	if taken {
		e.Handoff.SetKeepsMemory()
		log.Info("kept", "entries", stats.Entries, "down", time.Duration(stats.DownMS)*time.Millisecond)
		return
	}
	log.Info("no entries are kept from before", "reason", stats.Cold)
	err := tell("FDSTORE=1\nFDNAME="+testhook.KeptName, int(e.Store.Memory().Fd()))
	if err != nil {
		log.Warn("the entries will not be kept over a restart: run it as a unit of systemd, with Type=notify and "+
			"FileDescriptorStoreMax=1, or remove keep_memory", "error", err)
		return
	}
	e.Handoff.SetKeepsMemory()
}

// tellSystemd sends a message and descriptors to systemd.
func tellSystemd(message string, fds ...int) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return errors.New("NOTIFY_SOCKET is not set")
	}
	// A connected socket passes no descriptors on in Go.
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, _, err = conn.WriteMsgUnix([]byte(message), unix.UnixRights(fds...), &net.UnixAddr{Name: name, Net: "unixgram"})
	return err
}
