package measure

import (
	"io"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// TestLanguagesKnowTheSource checks that figures are refused if the sidecar's own count of reads
// says that they come from elsewhere.
func TestLanguagesKnowTheSource(t *testing.T) {
	figures := []peers.Figure{
		{Versions: map[string]string{"python": "3.11"}},
		{Case: "get", Side: record.OursSocket, Calls: 500, Seconds: 1},
		{Case: "set", Side: record.OursSocket, Calls: 900, Seconds: 1},
		{Case: "hits", Side: record.OursNear, Calls: 100_000, Seconds: 1},
		{Case: "hits", Side: record.OursShared, Calls: 100_000, Seconds: 1},
		{Case: "hits", Side: record.LRUCache, Calls: 100_000, Seconds: 1},
	}
	for _, c := range []struct {
		name  string
		asked map[string]int64
		want  string // of the error
	}{
		{"all as it should be", map[string]int64{socketSpace: 500, nearSpace: 15_000, sharedSpace: 2000}, ""},
		{"the socket is not asked", map[string]int64{socketSpace: 499}, "answered 499 reads, want the 500"},
		{"the near cache is not used", map[string]int64{socketSpace: 500, nearSpace: 15_001}, "near cache: 15001 reads asked"},
		{"the shared memory is not used", map[string]int64{socketSpace: 500, sharedSpace: 100_000}, "shared memory: 100000 reads"},
	} {
		b := &Bench{log: io.Discard, versions: map[string]string{}}
		l := &languages{b: b, p: record.Parameters{Keys: 1000}}
		err := catch(func() { l.keepFigures("Python", figures, c.asked) })
		const hit = "Python: hit in the process"
		switch {
		case c.want == "" && (err != nil || len(b.rows) != 2*5+2 || len(b.rows.Of(hit, record.LRUCache, "calls/s")) != 1):
			t.Errorf("%s: got %+v, error %v, want the figures of five sides", c.name, b.rows, err)
		case c.want == "" && (b.versions["python"] != "3.11" || b.rows.Of(hit, record.OursNear, "asked the sidecar, %")[0] != 15):
			t.Errorf("%s: got versions %v and %+v", c.name, b.versions, b.rows)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got error %v, want one with %q", c.name, err, c.want)
		}
	}
}
