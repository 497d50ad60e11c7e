package sidecar

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/race"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// refusing is an origin that cannot be opened.
type refusing struct{ loader.Custom }

var errRefusing = errors.New("refused")

func (refusing) Open(loader.OriginOptions) (*loader.Origin, error) { return nil, errRefusing }

// TestNewReleases checks that New keeps neither memory nor goroutines if one of its last
// steps fails.
func TestNewReleases(t *testing.T) {
	mapped := func() int64 {
		statm, err := os.ReadFile("/proc/self/statm")
		testenv.Must(t, err)
		pages, err := strconv.ParseInt(strings.Fields(string(statm))[0], 10, 64)
		testenv.Must(t, err)
		return pages * int64(os.Getpagesize())
	}
	const size, times = 256 << 20, 20
	before, goroutines := mapped(), runtime.NumGoroutine()
	for range times {
		_, err := New(Config{
			NoSocket: true, L2Size: size, Bind: "127.0.0.1:0", IgnoreMemoryLimit: true,
			Namespaces: map[string]Namespace{"a": {Origin: refusing{}}},
		})
		if !errors.Is(err, errRefusing) {
			t.Fatalf("got %v", err)
		}
	}
	// The race detector maps memory of its own beside the arenas, and keeps it.
	if grown := mapped() - before; grown > size*times/2 && !race.Enabled {
		t.Errorf("%d calls of New that failed have left %d MiB mapped", times, grown>>20)
	}
	testenv.Eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
}
