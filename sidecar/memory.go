package sidecar

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/shm"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Bounds of shared_size.
const (
	maxShared     = 1 << 30
	defaultShared = 32 << 20
)

// sharedDefault returns the default of shared_size.
func (c *Config) sharedDefault() Size {
	if !shm.Supported || c.NoSocket {
		return Off
	}
	return min(max(c.L2Size/8, shm.MinSize), defaultShared)
}

// memory is the region that the apps of this host share.
type memory struct {
	writer *shm.Writer

	mu   sync.RWMutex
	file *shm.File // nil: none
}

// Offered implements session.Memory.
func (m *memory) Offered() bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.file != nil
}

// Open implements session.Memory.
func (m *memory) Open() (*os.File, wire.Shared, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.file == nil {
		return nil, wire.Shared{}, fmt.Errorf("it has ended")
	}
	f, err := m.file.Open()
	return f, wire.Shared{
		Layout: shm.Layout, Size: m.writer.Stats().Size, ID: m.file.ID, Counter: m.writer.Count(), Path: m.file.Path,
	}, err
}

// begin makes the region of a socket, once this process serves it. A region that an earlier
// process has left may be read until then. If it cannot be ended, begin waits until nothing is
// served from it any more: before that no write may be acknowledged.
func (m *memory) begin(ctx context.Context, cfg *Config, socket string, epoch kv.Epoch) {
	ended, err := shm.EndOthers(socket)
	if err != nil {
		wait := cluster.Margin(cfg.MaxStaleness)
		cfg.Log.Warn("the shared memory of an earlier process cannot be ended: waiting until it is too old",
			"error", err, "wait", wait)
		kv.Sleep(ctx, wait)
	} else if ended > 0 {
		cfg.Log.Info("ended the shared memory of a process that did not end in order", "files", ended)
	}
	if cfg.SharedSize == Off {
		return
	}
	f, err := shm.Create(socket, int64(cfg.SharedSize))
	if err != nil {
		cfg.Log.Warn("apps share no memory, and read over the socket: lower shared_size, or make room",
			"shared_size", cfg.SharedSize, "error", err)
		return
	}
	m.writer.Attach(f, uint64(epoch), cfg.MaxStaleness)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.file = f
}

// end ends the region: from now on apps read over the socket.
func (m *memory) end(log *slog.Logger) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.file == nil {
		return
	}
	m.writer.End()
	if err := m.file.Remove(); err != nil {
		log.Warn("the file of the shared memory stays: remove it", "error", err)
	}
	m.file = nil
}
