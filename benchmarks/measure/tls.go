package measure

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
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
func (b *Bench) TLS(ctx context.Context, p record.Parameters) error {
	key, err := b.clusterKey(ctx)
	if err != nil {
		return err
	}
	files := map[string]string{plainSide: "", tlsSide: key}
	if err := b.tlsAnswers(ctx, p, files); err != nil {
		return err
	}
	return b.tlsDelays(ctx, p, files)
}

// clusterKey makes a key file.
func (b *Bench) clusterKey(ctx context.Context) (path string, err error) {
	text, err := exec.CommandContext(ctx, filepath.Join(b.dir, "cachesidecar"), "key", "generate").Output()
	if err != nil {
		return "", fmt.Errorf("key generate: %w", err)
	}
	path = filepath.Join(b.dir, "cluster.key")
	return path, os.WriteFile(path, text, 0o600)
}

// tlsAnswers compares GETs that the owner answers, 16 at a time and one at a time.
func (b *Bench) tlsAnswers(ctx context.Context, p record.Parameters, files map[string]string) error {
	fields := map[string]*field{}
	for name, file := range files {
		o := b.options(p, "-"+name)
		o.KeyFile = file
		cluster, err := peers.StartCluster(ctx, 2, 0, o)
		if err != nil {
			return err
		}
		defer cluster.Stop()
		if fields[name], err = b.openField(ctx, p, cluster); err != nil {
			return err
		}
	}
	for _, conns := range []int{clusterConns, 1} {
		for round := range p.Rounds {
			c := &contest{}
			defer c.close()
			for _, name := range []string{plainSide, tlsSide} {
				if err := fields[name].enter(c, name, true, fields[name].others, conns, 1, round); err != nil {
					return err
				}
			}
			if _, err := b.play(ctx, c, &p, round, fmt.Sprintf("answers of the owner, %d × 1", conns)); err != nil {
				return err
			}
		}
	}
	return nil
}

// tlsDelays compares how long an overwritten value lives on in copies.
func (b *Bench) tlsDelays(ctx context.Context, p record.Parameters, files map[string]string) error {
	sides := map[string]stream{}
	for name, file := range files {
		o := b.options(p, "-watched-"+name)
		o.KeyFile = file
		s, err := b.watchSidecars(ctx, p, o)
		if err != nil {
			return err
		}
		defer s.close()
		sides[name] = s
	}
	order := []string{plainSide, tlsSide}
	for round := range p.Rounds {
		for i := range order {
			name := order[(i+round)%2]
			t, err := b.stream(ctx, p, sides[name], p.Rate)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			b.put(fmt.Sprintf("%s invalidations/s, %d hosts", record.Commas(p.Rate), p.Hosts), name, t.figures()...)
		}
	}
	return nil
}
