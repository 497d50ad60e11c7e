package cluster

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestUntil checks that a translated moment comes no later on the owner's clock than
// the original does on this host's clock, and not much earlier. This must be so for all
// rates of the clocks and all delays of the answers.
func TestUntil(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for run := range 2000 {
		rate := 0.99 + 0.02*rnd.Float64()            // of the owner's clock
		booted := time.Duration(rnd.Int64N(1 << 55)) // what it shows at the beginning
		owner := func(now time.Duration) time.Duration { return booted + time.Duration(float64(now)*rate) }
		var o Host
		if o.Until(time.Hour) != 0 {
			t.Fatal("a moment is translated to a clock that no host has told of")
		}
		now := time.Duration(0)
		for range 20 {
			now += 500 * time.Millisecond
			made, way := now, time.Duration(rnd.Int64N(int64(time.Millisecond)))
			if rnd.IntN(5) == 0 {
				way = time.Duration(rnd.Int64N(int64(2 * time.Second)))
			}
			now += way
			o.setClock(owner(made), now)
			d := now + time.Duration(rnd.Int64N(int64(3*time.Second))) - time.Second
			got := time.Duration(o.Until(d))
			if d < now { // in the past
				if got > owner(now) {
					t.Fatalf("run %d: what was %v ago is %v ahead for the owner", run, now-d, got-owner(now))
				}
			} else if late := got - owner(d); late > 0 {
				t.Fatalf("run %d: %v late, of %v", run, late, d-now)
			} else if early := -late; way < time.Millisecond && early > 100*time.Millisecond {
				t.Fatalf("run %d: %v early, of %v", run, early, d-now)
			}
		}
	}
	var o Host
	o.setClock(0, time.Second) // an owner that does not tell its clock
	if o.Until(time.Hour) != 0 {
		t.Error("a moment is translated to a clock that is not told")
	}
}
