package memcached_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/doors"
	"github.com/cachesidecar/cachesidecar/internal/testing/memcachedtest"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestTextClaimsYield takes all claims that the connections of a process may have. While these connections stay, another
// one gets none. Once they have ended, their claims end for those that are asked for.
func TestTextClaimsYield(t *testing.T) {
	h := doors.Serve(t, onehost.Config{Namespaces: onehost.One(func(s *namespaces.Settings) { s.LeaseTime = time.Hour })})
	claim := func(c *memcachedtest.Conn, from, n int) (answers string) {
		var batch strings.Builder
		for i := range n {
			fmt.Fprintf(&batch, "mg k%d s N3600\r\n", from+i)
		}
		c.Send(batch.String() + "mn\r\n")
		return c.UntilNoop()
	}
	taken, hoarders := 0, []*memcachedtest.Conn{}
	for full := false; !full; {
		c := h.Text()
		hoarders = append(hoarders, c)
		for answers := ""; !strings.Contains(answers, "BUSY"); taken += 1000 {
			answers = claim(c, taken, 1000)
			full = !strings.Contains(answers, " W")
		}
		if taken > 2*flight.MaxLeases {
			t.Fatalf("%d claims, and no end", taken)
		}
	}
	c := h.Text()
	if answer := claim(c, taken, 1); !strings.Contains(answer, "BUSY") {
		t.Errorf("beside connections that have all claims: %q", answer)
	}
	for _, c := range hoarders {
		_ = c.Close()
	}
	testenv.Eventually(t, "claims of ended connections end for another", func() bool {
		taken += 200
		return strings.Count(claim(c, taken, 200), " W") == 200
	})
}
