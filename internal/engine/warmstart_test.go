package engine_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// TestWarm checks that a host loads the keys of a list at its rate, at most as many as it
// is told, and that a failed listing is reported.
func TestWarm(t *testing.T) {
	const n = 100
	done := cachesidecar.WarmStats{State: namespaces.WarmDone, Loaded: n - 1, Absent: 1}
	for name, tc := range map[string]struct {
		keys int
		fail error
		want cachesidecar.WarmStats
	}{
		"all":         {n, nil, done},
		"some":        {30, nil, cachesidecar.WarmStats{State: namespaces.WarmFailed, Loaded: 30}},
		"fails":       {n, context.DeadlineExceeded, cachesidecar.WarmStats{State: namespaces.WarmFailed}},
		"cannot load": {n, nil, cachesidecar.WarmStats{State: namespaces.WarmDone, Failed: n}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				o, lister := onehost.NewOrigin(time.Millisecond), onehost.NewOrigin(0)
				lister.FailLists(tc.fail)
				for i := range n {
					lister.Put(fmt.Sprint("key", i), []byte("listed"))
					if i > 0 || tc.keys < n { // one key does not exist
						o.Put(fmt.Sprint("key", i), []byte("value"))
					}
				}
				if name == "cannot load" {
					o.Fail(loader.ErrBusy)
				}
				h := loading(t, o, func(s *namespaces.Settings) {
					s.Warm = &namespaces.WarmSettings{Rate: 20, Keys: tc.keys, List: loader.List{Lister: lister}}
				})
				ns := h.Namespaces.Lookup([]byte(namespaces.Default))
				h.Run()
				time.Sleep(time.Second)
				half := ns.WarmStats()
				if tc.fail == nil && (half.State != namespaces.WarmRunning || half.Loaded+half.Absent+half.Failed < 19 ||
					half.Loaded+half.Absent+half.Failed > 21) {
					t.Errorf("after a second: %+v, want about 20 keys", half)
				}
				time.Sleep(n / 20 * time.Second)
				if got := ns.WarmStats(); got != tc.want {
					t.Errorf("%+v, want %+v", got, tc.want)
				}
				for i := 1; i < n && tc.want == done; i++ {
					key := fmt.Sprint("key", i)
					onehost.Is(t, key, h.Get(key, wire.NoLoad), wire.OK, "value")
					if o.Asked(key) != 1 {
						t.Errorf("%s was loaded %d times", key, o.Asked(key))
					}
				}
			})
		})
	}
}
