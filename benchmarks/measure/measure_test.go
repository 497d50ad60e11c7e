package measure

import (
	"errors"
	"io"
	"net"
	"testing"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/internal/load"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestContestCloses checks that a contest closes the connections of all sides, in the
// place where the measurements ask for it: a defer before the first side enters.
func TestContestCloses(t *testing.T) {
	var far []net.Conn
	func() {
		c := &contest{}
		defer c.close()
		for _, name := range []string{"one", "other"} {
			err := c.enter(name, load.Config{
				Dial: func() (net.Conn, error) {
					near, other := net.Pipe()
					far = append(far, other)
					return near, nil
				},
				Protocol: peers.Memcached{KeySize: 16}, Conns: 2, Pipeline: 1, Key: func(int, int) uint64 { return 0 },
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}()
	if len(far) != 4 {
		t.Fatalf("%d connections, want 4", len(far))
	}
	for _, nc := range far {
		_ = nc.SetDeadline(testenv.Deadline())
		if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%v, want a closed connection", err)
		}
	}
}
