package hosts

import (
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
	"github.com/cachesidecar/cachesidecar/internal/testing/peertest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGoldenMetrics checks the names, labels and types of all metrics: of a host that is
// alone, and of a host that has another host, an origin, and everything else that has
// metrics.
func TestGoldenMetrics(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	alone, err := New(Config{NoSocket: true, L2Size: 8 << 20})
	testenv.Must(t, err)
	defer alone.engine.Store.Close()
	page := "# A host that is alone.\n" + strings.Join(series(t, &host{Sidecar: alone}), "\n")

	log := logs.Start(io.Discard, logs.Options{})
	defer log.Close(time.Second)
	o := &store{database: newDatabase(always(time.Millisecond))}
	o.set("key", []byte("value"))
	list := loader.List{Lister: o}
	key := filepath.Join(t.TempDir(), "key")
	peertest.Replace(t, key, peertest.KeyText(peertest.Seed, "1"))
	cfg := Config{
		HTTP: "127.0.0.1:0", Memcached: "127.0.0.1:0", ClusterKeyFile: key, Log: log.Logger(),
		Namespaces: map[string]Namespace{"default": {}, "full": {
			Origin: loader.Custom{Source: o.database, Writer: o}, Quota: 1 << 20, WriteThrough: true,
			ExistingKeys: &ExistingKeys{Keys: 100, MaxAge: time.Hour, List: list}, WarmOnStart: &Warm{Rate: 100, List: list},
		}},
	}
	a, _ := twoHosts(t, cfg)
	for _, ns := range []string{"default", "full"} {
		if _, err := a.Set(t.Context(), ns, "k", []byte("v"), cachesidecar.SetOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Eventually(t, "the lease on b", func() bool { return len(a.telemetry.Stats().Cluster.Invalidations.Leases) == 1 })
	page += "\n\n# A host of two.\n" + strings.Join(series(t, a), "\n") + "\n"

	name := filepath.Join("testdata", "metrics.txt")
	if *update {
		testenv.Must(t, os.WriteFile(name, []byte(page), 0o644))
	}
	want, err := os.ReadFile(name)
	testenv.Must(t, err)
	if page != string(want) {
		t.Errorf("got:\n%s\nwant, as in %s (-update writes it anew):\n%s", page, name, want)
	}
}

// series returns the series of this project that a host has, each with its type. Values of
// labels that vary are replaced by a star.
func series(t *testing.T, h *host) []string {
	t.Helper()
	families, err := h.telemetry.Registry.Gather()
	testenv.Must(t, err)
	all := map[string]bool{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), telemetry.MetricPrefix) {
			continue
		}
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				value := l.GetValue()
				if varies(f, l) {
					value = "*"
				}
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), value))
			}
			all[fmt.Sprintf("%s{%s} %s", f.GetName(), strings.Join(labels, ","), strings.ToLower(f.GetType().String()))] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

func varies(f *dto.MetricFamily, l *dto.LabelPair) bool {
	switch strings.TrimPrefix(f.GetName(), telemetry.MetricPrefix) {
	case "build_info", "keys":
		return true
	case "requests_total":
		return l.GetName() != "namespace"
	}
	return false
}
