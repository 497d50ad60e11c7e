package measure

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// Sizes runs whole sidecars on a network in memory and in virtual time, by a test of
// their own module, and keeps the test's counts, by the names that it gives them.
func (b *Bench) Sizes(ctx context.Context, p record.Parameters) {
	root := must(peers.Root(ctx))
	cmd := exec.CommandContext(ctx, "go", "test", "-v", "-count=1", "-timeout=0", "-run=^TestVirtualTraffic$", "./internal/testing/hosts",
		"-traffic.nodes="+p.Nodes, "-traffic.rates="+p.Rates, fmt.Sprintf("-traffic.for=%dms", p.WindowMS))
	cmd.Dir = root
	said, err := cmd.CombinedOutput()
	if err != nil {
		fail("%s: %w\n%s", strings.Join(cmd.Args, " "), err, said)
	}
	lines := bufio.NewScanner(strings.NewReader(string(said)))
	for lines.Scan() {
		text, ok := strings.CutPrefix(lines.Text(), "traffic ")
		if !ok {
			continue
		}
		var counts map[string]float64
		if err := json.Unmarshal([]byte(text), &counts); err != nil {
			fail("TestVirtualTraffic prints %q: %w", text, err)
		}
		shape := fmt.Sprintf("%.0f nodes, %s writes/s", counts["nodes"], record.Commas(counts["rate"]))
		for _, name := range slices.Sorted(maps.Keys(counts)) {
			b.rows.Add(shape, "", name, counts[name])
		}
		b.logf("%s: %s", shape, text)
	}
	if len(b.rows) == 0 {
		fail("TestVirtualTraffic prints no figures:\n%s", said)
	}
}
