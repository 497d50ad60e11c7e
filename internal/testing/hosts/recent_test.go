package hosts

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// TestVirtualRecentRequests checks that a host on which all requests of a namespace fail says so,
// however many requests came before, and that it is well again by time alone: a minute after the
// last of them, although the origin is not asked again and the breaker stays half-open.
func TestVirtualRecentRequests(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	bubble.Test(t, func(t *testing.T) {
		var down error
		w := newWorld(t, 1, 2)
		w.namespaces = map[string]Namespace{"users": {Origin: loader.Custom{
			Source: loader.SourceFunc(func(context.Context, []byte) (loader.Value, error) { return loader.Value{}, down }),
		}}}
		v := w.nodes[0]
		w.startAll()
		defer w.leaveAll()
		w.agreed(30 * time.Second)
		get := func(key string, n int) (failed int) {
			for i := range n {
				if _, err := v.s.Get(t.Context(), "users", fmt.Sprint(key, i), cachesidecar.GetOptions{}); err != nil {
					failed++
				}
			}
			return failed
		}
		is := func(when, word string, requests, errors int64) {
			t.Helper()
			st := v.s.telemetry.Stats()
			for _, ns := range st.Namespaces {
				r := ns.Recent
				if ns.Name == "users" && (r.Requests != requests || r.Errors != errors || r.WindowMS > 60_000) {
					t.Errorf("%s: %+v, want %d requests and %d errors within a minute", when, r, requests, errors)
				}
			}
			if got, why := telemetry.ConditionOf(&st); got != word {
				t.Errorf("%s: %s %q, want %s", when, got, why, word)
			}
		}
		for range 5 {
			if n := get("k", 1000); n != 0 {
				t.Fatalf("%d reads failed", n)
			}
		}
		is("at first", telemetry.Serving, 5_000, 0)
		time.Sleep(2 * time.Minute)
		is("two minutes later", telemetry.Serving, 0, 0)
		down = errors.New("away")
		if n := get("other", 40); n != 40 {
			t.Fatalf("%d of 40 reads failed", n)
		}
		is("when all fail", telemetry.NotWell, 40, 40)
		time.Sleep(49 * time.Second)
		is("49 s later", telemetry.NotWell, 40, 40)
		time.Sleep(12 * time.Second)
		is("a minute later", telemetry.Serving, 0, 0)
		if st := v.s.telemetry.Stats(); len(st.Namespaces) == 0 || !st.Namespaces[len(st.Namespaces)-1].Loads.BreakerHalfOpen {
			t.Errorf("the breaker is not half-open: %+v", st.Namespaces)
		}
	})
}
