package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestKeepMemoryInCluster restarts a host of three. Its keys, which the others got next to none of, are there
// again, but for those that were changed while it was down.
func TestKeepMemoryInCluster(t *testing.T) {
	ports, err := freePorts(6)
	if err != nil {
		t.Fatal(err)
	}
	stores, flags, hosts := make([]*systemdStore, 3), make([][]string, 3), make([]*process, 3)
	join := []string{loopback(ports[0]), loopback(ports[2]), loopback(ports[4])}
	for i := range hosts {
		stores[i] = newSystemdStore(t)
		stores[i].node = fmt.Sprint("host", i)
		flags[i] = []string{
			"--keep-memory", "--l2-size", "64MiB", "--bind", join[i], "--peer-bind", loopback(ports[2*i+1]),
			"--join", strings.Join(join, ","),
		}
		hosts[i] = stores[i].start(flags[i]...)
	}
	whole(t, hosts...)
	c, err := client.Dial(t.Context(), client.Config{Socket: stores[1].socket})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, keys := context.Background(), make([]string, 6000)
	for i := range keys {
		keys[i] = fmt.Sprint("key", i)
		if _, err := c.Set(ctx, keys[i], []byte(strings.Repeat("v", 1000)), cachesidecar.SetOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	sent := handedOver(hosts[1:])
	for restart := range 2 {
		stores[0].ends(hosts[0])
		changed := fmt.Sprint("new", restart)
		for _, key := range keys[:500] {
			if _, err := c.Set(ctx, key, []byte(changed), cachesidecar.SetOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		hosts[0] = stores[0].start(flags[0]...)
		whole(t, hosts...)
		testenv.Succeeds(t, "to know what is served again", func() error {
			if k := takenOver(hosts[0]); k.Cold != "" || k.Waiting > 0 {
				return fmt.Errorf("%+v", k)
			}
			return nil
		})
		k := takenOver(hosts[0])
		if k.Partitions < partitions/4 || k.Again < k.Partitions*9/10 || !strings.Contains(hosts[0].must("stats"), " partitions served again, ") {
			t.Errorf("restart %d: %+v", restart, k)
		}
		hits := 0
		for i, key := range keys {
			it, err := c.Get(ctx, key, cachesidecar.GetOptions{Fresh: true})
			switch {
			case err == nil && i < 500 && string(it.Value) != changed:
				t.Errorf("restart %d: %s is %.20q", restart, key, it.Value)
			case err == nil:
				hits++
			}
		}
		if hits < len(keys)*97/100 { // of the restarted host's third: 91 %
			t.Errorf("restart %d: %d of %d keys are there: %+v", restart, hits, len(keys), k)
		}
	}
	if moved := handedOver(hosts[1:]) - sent; moved > int64(len(keys))*1000/10 {
		t.Errorf("%d B were handed over", moved)
	}
	for i := range hosts {
		stores[i].ends(hosts[i])
	}
}

// handedOver returns how many bytes came to some hosts from others.
func handedOver(hosts []*process) (n int64) {
	for _, p := range hosts {
		var st cachesidecar.Stats
		p.document(&st, "stats")
		n += st.Cluster.Handoff.Bytes
	}
	return n
}
