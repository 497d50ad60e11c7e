package origintest

import (
	"errors"
	"testing"

	"github.com/cachesidecar/cachesidecar/loader"
)

// Memory is a loader.Memory of some bytes, for an origin that is asked by one caller.
type Memory struct{ Left, Taken int }

// Take takes n bytes, if there are so many.
func (m *Memory) Take(n int) bool {
	if n > m.Left {
		return false
	}
	m.Left -= n
	m.Taken += n
	return true
}

// Give gives n bytes back.
func (m *Memory) Give(n int) { m.Left += n }

// TakesMemory loads a short and a long value from an origin, whose memory m is: there is room for
// the short one, and half of that for the long one. In the end no memory is taken.
func TakesMemory(t *testing.T, m *Memory, short, long func() (loader.Value, error)) {
	t.Helper()
	all := m.Left
	if v, err := short(); err != nil || len(v.Bytes) == 0 || m.Taken < len(v.Bytes) {
		t.Errorf("short: %d bytes, %v, took %d", len(v.Bytes), err, m.Taken)
	}
	if v, err := long(); !errors.Is(err, loader.ErrNoMemory) || !errors.Is(err, loader.ErrBusy) || v.Bytes != nil {
		t.Errorf("long: %d bytes, %v", len(v.Bytes), err)
	}
	if m.Left != all {
		t.Errorf("%d bytes are still taken", all-m.Left)
	}
}
