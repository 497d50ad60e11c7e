package cluster

import "time"

// Adaptive lowers a node's weight while it is under pressure, and raises it
// again: in small steps, each of which moves a few partitions; slowly, since
// every step costs a handoff; with a gap between the pressure at which it
// lowers and the one at which it raises; and the more slowly the more often it
// has turned round, so that a load that comes and goes does not move partitions
// to and fro for ever. It is pure: time and pressure go in.
type Adaptive struct {
	base    uint32
	steps   int           // taken down
	smooth  float64       // pressure, smoothed
	last    time.Duration // when it was last asked
	changed time.Duration // when the weight was last changed; zero is never
	lowered bool          // that change was one down
	turns   int           // lately: each doubles the cool-down
	over    time.Duration // since when the pressure has been high; zero is not
	under   time.Duration // since when it has been low
}

// The rule. Pressure 1 is all that a node can bear.
const (
	adaptStep   = 8                // steps from the full weight to none
	adaptFloor  = 6                // at most so many of them
	adaptHigh   = 0.9              // lowers
	adaptLow    = 0.6              // raises
	adaptSmooth = 10 * time.Second // time constant
	adaptLower  = 15 * time.Second // high for so long
	adaptRaise  = time.Minute      // low for so long
	adaptCool   = 30 * time.Second // between two changes
	adaptTurns  = 6                // at most so many count
)

// NewAdaptive begins with a node's full weight.
func NewAdaptive(base uint32) *Adaptive { return &Adaptive{base: base} }

// Weight is the weight now.
func (a *Adaptive) Weight() uint32 {
	return max(1, uint32(uint64(a.base)*uint64(adaptStep-a.steps)/adaptStep))
}

// Step takes the pressure at a moment, and says whether the weight has changed.
// It is called every second or so.
func (a *Adaptive) Step(now time.Duration, pressure float64) bool {
	if dt := min(now-a.last, adaptSmooth); a.last != 0 {
		a.smooth += (pressure - a.smooth) * float64(dt) / float64(adaptSmooth)
	}
	a.last = now
	since(&a.over, a.smooth > adaptHigh, now)
	since(&a.under, a.smooth < adaptLow, now)
	cool := adaptCool << a.turns
	if a.turns > 0 && now-a.changed > 4*cool { // it has found its place
		a.turns--
	}
	if a.changed != 0 && now-a.changed < cool {
		return false
	}
	lower := a.over != 0 && now-a.over >= adaptLower && a.steps < adaptFloor
	raise := a.under != 0 && now-a.under >= adaptRaise && a.steps > 0
	switch {
	case lower:
		a.steps++
	case raise:
		a.steps--
	default:
		return false
	}
	if a.changed != 0 && lower != a.lowered {
		a.turns = min(a.turns+1, adaptTurns)
	}
	a.changed, a.lowered = now, lower
	a.over, a.under = 0, 0 // what comes is judged anew
	return true
}

// since notes when a condition began to hold.
func since(at *time.Duration, holds bool, now time.Duration) {
	switch {
	case !holds:
		*at = 0
	case *at == 0:
		*at = now
	}
}
