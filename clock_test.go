package cachesidecar

import (
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/clocks"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestLengthyClockReaders lists the tests that read the machine's clock, each with the reason
// and the duration that it counts on. All others run in virtual time, or go by order or counts.
func TestLengthyClockReaders(t *testing.T) {
	testenv.Takes(t, 20*time.Second)
	clocks.Check(t)
}
