package measure

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

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
// take turns. It returns a line for each round, and the medians.
func (b *Bench) TLS(ctx context.Context, c record.ClusterParameters, p record.PropagationParameters) (lines []string, err error) {
	key, err := b.clusterKey(ctx)
	if err != nil {
		return nil, err
	}
	files := map[string]string{plainSide: "", tlsSide: key}
	answers, err := b.tlsAnswers(ctx, c, files)
	if err != nil {
		return nil, err
	}
	delays, err := b.tlsDelays(ctx, p, files)
	if err != nil {
		return nil, err
	}
	return append(answers, delays...), nil
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
func (b *Bench) tlsAnswers(ctx context.Context, p record.ClusterParameters, files map[string]string) (lines []string, err error) {
	fields := map[string]*field{}
	for name, file := range files {
		o := b.hostOptions(p)
		o.Label, o.KeyFile = "-"+name, file
		cluster, err := peers.StartCluster(ctx, 2, 0, o)
		if err != nil {
			return nil, err
		}
		defer cluster.Stop()
		f := &field{b: b, p: p, c: cluster, asked: cluster.Hosts()[0]}
		owners, err := cluster.Owners(ctx, f.asked, 2*p.Keys)
		if err != nil {
			return nil, err
		}
		f.others = owners[cluster.Hosts()[1].Node()]
		if _, err := fill(ctx, f.asked.Server, 2*p.Keys); err != nil {
			return nil, err
		}
		fields[name] = f
	}
	for _, conns := range []int{clusterConns, 1} {
		var ratios []float64
		for round := range p.Rounds {
			sides, err := tlsContest(ctx, p, fields, conns, round)
			if err != nil {
				return nil, err
			}
			plain, tls := sides[plainSide], sides[tlsSide]
			ratios = append(ratios, tls.PerSecond()/plain.PerSecond())
			lines = append(lines, fmt.Sprintf("answers of the owner, %2d × 1, round %d: plain %.1f k/s, p50 %.0f µs; TLS %.1f k/s, p50 %.0f µs; ratio %.2f",
				conns, round+1, plain.PerSecond()/1000, plain.At(50), tls.PerSecond()/1000, tls.At(50), ratios[round]))
			b.logf("%s", lines[len(lines)-1])
		}
		lines = append(lines, fmt.Sprintf("answers of the owner, %2d × 1: ratio of TLS to plain, median %.2f", conns, median(ratios)))
	}
	return lines, nil
}

func tlsContest(ctx context.Context, p record.ClusterParameters, fields map[string]*field, conns, round int) (map[string]record.Side, error) {
	c := &contest{}
	defer c.close()
	for _, name := range []string{plainSide, tlsSide} {
		f := fields[name]
		if err := f.enter(c, name, true, f.others, conns, 1, round); err != nil {
			return nil, err
		}
	}
	return c.play(ctx, p.Turns, round)
}

// tlsDelays compares how long an overwritten value lives on in copies.
func (b *Bench) tlsDelays(ctx context.Context, p record.PropagationParameters, files map[string]string) (lines []string, err error) {
	sides := map[string]stream{}
	for name, file := range files {
		o := b.watchOptions(p, "-watched-"+name)
		o.KeyFile = file
		s, err := b.watchSidecars(ctx, p, o)
		if err != nil {
			return nil, err
		}
		defer s.close()
		sides[name] = s
	}
	var ratios []float64
	for round := range p.Rounds {
		p50 := map[string]float64{}
		order := []string{plainSide, tlsSide}
		for i := range order {
			name := order[(i+round)%2]
			s, err := b.stream(ctx, p, sides[name], p.Rate)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			p50[name] = at(s.PairUS, 50)
		}
		ratios = append(ratios, p50[tlsSide]/p50[plainSide])
		lines = append(lines, fmt.Sprintf("invalidations, %d hosts, %d writes/s, round %d: p50 plain %.2f ms, TLS %.2f ms; ratio %.2f",
			p.Hosts, p.Rate, round+1, p50[plainSide]/1000, p50[tlsSide]/1000, ratios[round]))
		b.logf("%s", lines[len(lines)-1])
	}
	return append(lines, fmt.Sprintf("invalidations: ratio of TLS to plain, median %.2f", median(ratios))), nil
}

func median(list []float64) float64 {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2]
}
