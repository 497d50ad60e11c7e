package measure

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// Sizes runs whole sidecars on a network in memory and in virtual time, by a test of
// their own module, and returns the test's counts.
func (b *Bench) Sizes(ctx context.Context, p record.SizesParameters) (rows []record.SizesRow, err error) {
	root, err := peers.Root(ctx)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-v", "-count=1", "-timeout=0", "-run=^TestVirtualTraffic$", "./internal/testing/hosts",
		"-traffic.nodes="+p.Nodes, "-traffic.rates="+p.Rates, fmt.Sprintf("-traffic.for=%dms", p.WindowMS))
	cmd.Dir = root
	said, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, said)
	}
	lines := bufio.NewScanner(strings.NewReader(string(said)))
	for lines.Scan() {
		text, ok := strings.CutPrefix(lines.Text(), "traffic ")
		if !ok {
			continue
		}
		var r record.SizesRow
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			return nil, fmt.Errorf("TestVirtualTraffic prints %q: %w", text, err)
		}
		b.logf("%3d nodes, %6d writes/s: %.0f bytes/s of events, %.0f of polls, %.0f of gossip; p99 %.2f ms",
			r.Nodes, r.Rate, r.Followed, r.Polled, r.Gossip, r.P99US/1000)
		rows = append(rows, r)
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("TestVirtualTraffic prints no figures:\n%s", said)
	}
	return rows, nil
}
