package cachesidecar

import (
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/clocks"
)

// TestClockReaders lists the tests that read the machine's clock, each with the reason and
// the duration that it counts on. All others run in virtual time, or go by order or counts.
func TestClockReaders(t *testing.T) { clocks.Check(t) }
