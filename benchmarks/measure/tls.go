package measure

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// Sides of the measurement of TLS.
const (
	plainSide = "plain"
	tlsSide   = "tls"
)

// TLS measures the cost of the encryption between hosts: for answers of owners, and for
// how long an overwritten value lives on in copies. Two clusters, one with a cluster key,
// take turns.
func (b *Bench) TLS(ctx context.Context, p record.Parameters) {
	files := map[string]string{plainSide: "", tlsSide: b.clusterKey(ctx)}
	b.tlsAnswers(ctx, p, files)
	b.tlsDelays(ctx, p, files)
}

// clusterKey makes a key file.
func (b *Bench) clusterKey(ctx context.Context) (path string) {
	text, err := exec.CommandContext(ctx, filepath.Join(b.dir, "cachesidecar"), "key", "generate").Output()
	if err != nil {
		fail("key generate: %w", err)
	}
	path = filepath.Join(b.dir, "cluster.key")
	check(os.WriteFile(path, text, 0o600))
	return path
}

// tlsAnswers compares GETs that the owner answers, 16 at a time and one at a time.
func (b *Bench) tlsAnswers(ctx context.Context, p record.Parameters, files map[string]string) {
	defer b.scope()()
	fields := map[string]*field{}
	for name, file := range files {
		o := b.options(p, "-"+name)
		o.KeyFile = file
		fields[name] = b.openField(ctx, p, b.startHosts(ctx, 2, 0, o))
	}
	for _, conns := range []int{clusterConns, 1} {
		for round := range p.Rounds {
			c := &contest{}
			defer c.close()
			for _, name := range []string{plainSide, tlsSide} {
				fields[name].enter(c, name, true, fields[name].others, conns, 1, round)
			}
			b.play(ctx, c, &p, round, fmt.Sprintf("answers of the owner, %d × 1", conns))
		}
	}
}

// tlsDelays compares how long an overwritten value lives on in copies.
func (b *Bench) tlsDelays(ctx context.Context, p record.Parameters, files map[string]string) {
	var sides []namedStream
	for _, name := range []string{plainSide, tlsSide} {
		o := b.options(p, "-watched-"+name)
		o.KeyFile = files[name]
		sides = append(sides, namedStream{name, b.openSidecars(ctx, p, o)})
	}
	b.takeTurns(ctx, p, sides, p.Rate)
}
