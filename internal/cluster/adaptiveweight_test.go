package cluster

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// adaptiveRun simulates nodes. Each node's pressure is its share of a demand, divided
// by its capacity. It returns how often each node changed its weight in the second half
// of the run, and the weights at the end.
func adaptiveRun(capacity []float64, length time.Duration, demand func(at time.Duration) float64, noise float64) (changes []int, weights []uint32) {
	rnd := rand.New(rand.NewPCG(1, 2))
	const base = 1024
	nodes := make([]*AdaptiveWeight, len(capacity))
	for i := range nodes {
		nodes[i] = NewAdaptiveWeight(base)
	}
	changes = make([]int, len(nodes))
	for at := time.Second; at < length; at += time.Second {
		total := 0.0
		for _, n := range nodes {
			total += float64(n.Weight())
		}
		for i, n := range nodes {
			load := demand(at) * float64(n.Weight()) / total
			if n.Step(at, load/capacity[i]+noise*rnd.NormFloat64()) && at > length/2 {
				changes[i]++
			}
		}
	}
	for _, n := range nodes {
		weights = append(weights, n.Weight())
	}
	return changes, weights
}

func constant(v float64) func(time.Duration) float64 { return func(time.Duration) float64 { return v } }

// TestAdaptiveSlowNode checks that a node with half of the others' capacity ends with
// less weight and stays there.
func TestAdaptiveSlowNode(t *testing.T) {
	changes, weights := adaptiveRun([]float64{1, 1, 1, 1, 0.5}, 2*time.Hour, constant(3.2), 0.05)
	if weights[4] >= weights[0] || weights[4] > 800 {
		t.Errorf("weights %v: the slow node should have less", weights)
	}
	for i, n := range changes {
		if n > 4 {
			t.Errorf("node %d changed its weight %d times in the second hour of a steady load", i, n)
		}
	}
	t.Logf("weights %v, changes in the second hour %v", weights, changes)
}

// TestAdaptiveOscillation checks that a load that comes and goes, fast or slowly, does
// not move partitions back and forth.
func TestAdaptiveOscillation(t *testing.T) {
	for _, period := range []time.Duration{2 * time.Second, 20 * time.Second, 2 * time.Minute, 20 * time.Minute} {
		wave := func(at time.Duration) float64 {
			return 4 * (0.75 + 0.35*math.Sin(2*math.Pi*at.Seconds()/period.Seconds()))
		}
		changes, _ := adaptiveRun([]float64{1, 1, 1, 1}, 4*time.Hour, wave, 0.05)
		const most = 8 // once every 15 minutes
		for i, n := range changes {
			if n > most {
				t.Errorf("period %v: node %d changed its weight %d times in two hours, want at most %d", period, i, n, most)
			}
		}
		t.Logf("period %v: changes in two hours: %v", period, changes)
	}
}

// TestAdaptiveCalm checks that noise alone changes nothing, and that a calm node
// returns to its full weight.
func TestAdaptiveCalm(t *testing.T) {
	if changes, weights := adaptiveRun([]float64{1, 1, 1}, time.Hour, constant(2.2), 0.3); changes[0]+changes[1]+changes[2] != 0 || weights[0] != 1024 {
		t.Errorf("noise: changes %v, weights %v", changes, weights)
	}
	a := NewAdaptiveWeight(1000)
	at := time.Second
	for ; at < 10*time.Minute; at += time.Second {
		a.Step(at, 2)
	}
	if w := a.Weight(); w != 250 {
		t.Errorf("under lasting pressure the weight is %d, want a quarter", w)
	}
	for ; at < 60*time.Minute; at += time.Second {
		a.Step(at, 0.1)
	}
	if w := a.Weight(); w != 1000 {
		t.Errorf("in a calm it is %d, want all of it again", w)
	}
	if w := NewAdaptiveWeight(1).Weight(); w != 1 {
		t.Errorf("the least weight is %d", w)
	}
}
