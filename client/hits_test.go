package client_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// namespaceStats returns what the sidecar has counted in a namespace.
func namespaceStats(t testing.TB, c *client.Client, name string) cachesidecar.NamespaceStats {
	t.Helper()
	st, err := c.Stats(t.Context())
	testenv.Must(t, err)
	for _, ns := range st.Namespaces {
		if ns.Name == name {
			return ns
		}
	}
	return cachesidecar.NamespaceStats{}
}

// The sidecar's counts have the hits in shared memory by namespace, all of them once the client
// is closed, and its hottest key is one that is read there.
func TestSharedHitsAreCounted(t *testing.T) {
	const reads = 50_000
	path := filepath.Join(t.TempDir(), "s")
	serve(t, path)
	other := dial(t, client.Config{Socket: path})
	c := sharing(t, client.Config{Socket: path})
	views := map[string]*client.Client{"default": c, "users": c.InNamespace("users")}
	want := map[string]int64{}
	for name, view := range views {
		testenv.Must(t, testenv.ErrorOf(view.Set(t.Context(), "hottest", []byte("x"), cachesidecar.SetOptions{})))
		warm(t, view, "hottest")
		want[name]++
	}
	for i := 0; want["default"]+want["users"] < reads; i++ {
		name := "default"
		if i%10 == 0 {
			name = "users"
		}
		it, err := views[name].Get(t.Context(), "hottest", cachesidecar.GetOptions{})
		testenv.Must(t, err)
		if it.Source == "shared" {
			want[name]++
		}
	}
	if got := c.SharedStats().Hits; got != reads {
		t.Errorf("the client has counted %d hits, want %d", got, reads)
	}
	c.Close()
	for name, n := range want {
		if ns := namespaceStats(t, other, name); ns.SharedHits != n || ns.Hits < n || ns.NearHits != 0 || ns.Misses != 0 {
			t.Errorf("%s: %+v, want %d hits in shared memory", name, ns, n)
		}
	}
	hot, err := other.Hot(t.Context(), cachesidecar.HotOptions{Namespace: "default"})
	if err != nil || len(hot.Keys) == 0 {
		t.Fatalf("%+v, %v", hot, err)
	}
	// 256 reads make one of some 170 samples: a half is ten standard errors.
	if k := hot.Keys[0]; k.Key != "hottest" || k.Reads < want["default"]/2 || k.Reads > want["default"]*3/2 {
		t.Errorf("the hottest key is %+v, want hottest with %d reads", k, want["default"])
	}
}

// Hits of the near cache are counted too, soon after they are made, though the client goes on.
func TestNearHitsAreCounted(t *testing.T) {
	testenv.Takes(t, time.Second)
	path := filepath.Join(t.TempDir(), "s")
	serve(t, path)
	other := dial(t, client.Config{Socket: path})
	c := dial(t, client.Config{Socket: path, NearCache: client.NearCache{Bytes: 1 << 20, Bound: time.Minute}})
	users := c.InNamespace("users")
	testenv.Must(t, testenv.ErrorOf(users.Set(t.Context(), "k", []byte("x"), cachesidecar.SetOptions{})))
	near := int64(0)
	testenv.Eventually(t, "hits of the near cache", func() bool {
		it, err := users.Get(t.Context(), "k", cachesidecar.GetOptions{})
		testenv.Must(t, err)
		if it.Source == "near" {
			near++
		}
		return near == 20
	})
	testenv.Eventually(t, "their count", func() bool { return namespaceStats(t, other, "users").NearHits == near })
	if got := c.NearStats().Hits; got != near {
		t.Errorf("the client has counted %d hits, want %d", got, near)
	}
	ns := namespaceStats(t, other, "users")
	if ns.Hits < near+1 || ns.Reads() != ns.Hits || namespaceStats(t, other, "default").NearHits != 0 {
		t.Errorf("%+v", ns)
	}
}

// empty is an origin without values.
type empty struct{}

func (empty) Load(context.Context, []byte) (v loader.Value, err error) { return v, loader.ErrAbsent }

// What the shared memory knows to be absent is a miss for the counts.
func TestAbsentKeysAreCounted(t *testing.T) {
	testenv.Takes(t, time.Second)
	path := filepath.Join(t.TempDir(), "s")
	serveWith(t, sidecar.Config{Socket: path, L2Size: 64 << 20, Namespaces: map[string]sidecar.Namespace{"default": {
		NegativeTTL: new(time.Hour), Origin: loader.Custom{Source: empty{}},
	}}})
	other := dial(t, client.Config{Socket: path})
	c := sharing(t, client.Config{Socket: path})
	testenv.Eventually(t, "a miss in the shared memory", func() bool {
		_, _ = c.Get(t.Context(), "none", cachesidecar.GetOptions{})
		return c.SharedStats().Hits >= 20
	})
	absent := c.SharedStats().Hits
	c.Close()
	ns := namespaceStats(t, other, "default")
	if ns.Misses < absent+1 || ns.Hits != 0 || ns.SharedHits != 0 || ns.Reads() != ns.Misses {
		t.Errorf("%+v, want %d misses in the shared memory among others", ns, absent)
	}
}

// What was reported is not kept for the next report.
func TestHitsAreReportedOnce(t *testing.T) {
	s := newScripted(t, client.Config{})
	for range 200 {
		s.CountNear("k")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.SendHits(t.Context())
	}()
	a := s.wants(wire.OpHits)
	// Of each 16 reads in a row one is sampled, of a part of them at most one.
	if n := len(a.Keys); a.Hits != (wire.Hits{Near: 200}) || string(a.Namespace) != "default" || n < 8 || n > 18 {
		t.Errorf("%+v, with %d keys", a.Request, n)
	}
	a.answer(wire.Reply{})
	<-done
	s.SendHits(t.Context()) // there is nothing
	if n := len(s.asked); n > 0 || !s.AllReported() {
		t.Errorf("%d more requests came, and all is reported: %v", n, s.AllReported())
	}
}
