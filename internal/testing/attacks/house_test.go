package attacks

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// house is the hosts of one side: one, or two that are a cluster.
type house struct {
	hosts  []*host
	origin string // the address of the attacker's origin, if it has one
}

// target returns the house as attackers see it.
func (h *house) target() target {
	t := target{Origin: h.origin}
	for _, x := range h.hosts {
		t.Hosts = append(t.Hosts, x.endpoint)
	}
	return t
}

// build starts a house and does not wait until it is ready. The house runs until the test
// keeps ends.
func build(t, keeps testing.TB, a *attack, side string) *house {
	t.Helper()
	dir := folder(keeps)
	h := &house{origin: testenv.FreeAddress(t)}
	flags := []string{"--max-connections", strconv.Itoa(cmp.Or(a.conns, 1000))}
	if a.config != nil {
		file := filepath.Join(dir, "config.yaml")
		testenv.Must(t, os.WriteFile(file, []byte(a.config(keeps, h.origin, dir)), 0o600))
		flags = append(flags, "--config", file)
	}
	if a.keyed {
		file := filepath.Join(dir, "cluster.key")
		if out, err := exec.Command(command(t), "key", "generate", "--out", file).CombinedOutput(); err != nil {
			t.Fatalf("key generate: %v\n%s", err, out)
		}
		flags = append(flags, "--cluster-key-file", file)
	}
	var prefix []string
	if a.files > 0 {
		prefix = []string{"sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, a.files)}
	}
	var join, gossip, peer []string
	for range a.hosts {
		gossip, peer = append(gossip, testenv.FreeAddress(t)), append(peer, testenv.FreeAddress(t))
	}
	join = gossip
	for i := range max(a.hosts, 1) {
		more := flags
		if a.hosts > 0 {
			more = append([]string{"--bind", gossip[i], "--peer-bind", peer[i], "--join", strings.Join(join, ",")}, flags...)
		}
		x := start(t, keeps, dir, side+strconv.Itoa(i), newCage(t, keeps, stated(a)), prefix, more...)
		if a.hosts > 0 {
			x.Gossip, x.Peer = gossip[i], peer[i]
		}
		h.hosts = append(h.hosts, x)
	}
	return h
}

// ready waits until all hosts are ready.
func (h *house) ready(t testing.TB) {
	for _, x := range h.hosts {
		x.ready(t, len(h.hosts))
	}
}

// kill ends all processes.
func (h *house) kill() {
	for _, x := range h.hosts {
		x.kill()
	}
}

// alive reports whether all processes are running.
func (h *house) alive() bool {
	return !slices.ContainsFunc(h.hosts, func(x *host) bool { return !x.alive() })
}

// settle collects the garbage of all hosts every second, and returns their memory once it
// is below the bound, or after wait.
func (h *house) settle(ctx context.Context, bound []int64, wait time.Duration) []int64 {
	var collected time.Time
	for end := time.Now().Add(wait); ; time.Sleep(50 * time.Millisecond) {
		// Connections that just ended may still release memory.
		if time.Since(collected) > time.Second {
			collected = time.Now()
			for _, x := range h.hosts {
				if err := x.collect(); err != nil && x.alive() {
					time.Sleep(100 * time.Millisecond)
					_ = x.collect()
				}
			}
		}
		var now []int64
		back := true
		for i, x := range h.hosts {
			now = append(now, x.rss())
			back = back && i < len(bound) && now[i] <= bound[i]
		}
		if back || time.Now().After(end) || ctx.Err() != nil {
			return now
		}
	}
}
