package cluster

import "time"

// AdaptiveWeight lowers a node's weight while the node is under pressure, and raises it again
// afterwards. It moves in small steps, each of which moves a few partitions. It moves
// slowly, because every step costs a handoff. The pressure at which it lowers is well
// above the one at which it raises. It moves more slowly the more often it has changed
// direction, so that a load that comes and goes does not move partitions back and forth
// for ever.
//
// AdaptiveWeight is pure: time and pressure are its only inputs. It is not safe for
// concurrent use.
type AdaptiveWeight struct {
	base      uint32
	steps     int           // steps taken down from base
	smooth    float64       // pressure, smoothed
	last      time.Duration // time of the last Step
	changed   time.Duration // time of the last change of the weight; zero: never
	lowered   bool          // the last change was down
	reversals int           // recent changes of direction; each doubles the cool-down
	highSince time.Duration // since when the pressure is high; zero: it is not
	lowSince  time.Duration // since when the pressure is low; zero: it is not
}

// The rule. Pressure 1 is all that a node can bear.
const (
	fullSteps    = 8                // steps from the full weight to none
	maxStepsDown = 6                // the most steps that are taken down
	adaptHigh    = 0.9              // above this the weight goes down
	adaptLow     = 0.6              // below this the weight goes up
	adaptSmooth  = 10 * time.Second // time constant of the smoothing
	adaptLower   = 15 * time.Second // high for this long
	adaptRaise   = time.Minute      // low for this long
	adaptCool    = 30 * time.Second // between two changes
	maxReversals = 6                // the most reversals that count
)

// NewAdaptiveWeight returns an AdaptiveWeight at a node's full weight.
func NewAdaptiveWeight(base uint32) *AdaptiveWeight { return &AdaptiveWeight{base: base} }

// Weight returns the present weight, at least 1.
func (aw *AdaptiveWeight) Weight() uint32 {
	return max(1, uint32(uint64(aw.base)*uint64(fullSteps-aw.steps)/fullSteps))
}

// Step takes the pressure at a moment and reports whether the weight has changed. Call
// it about once a second.
func (aw *AdaptiveWeight) Step(now time.Duration, pressure float64) bool {
	if dt := min(now-aw.last, adaptSmooth); aw.last != 0 {
		aw.smooth += (pressure - aw.smooth) * float64(dt) / float64(adaptSmooth)
	}
	aw.last = now
	since(&aw.highSince, aw.smooth > adaptHigh, now)
	since(&aw.lowSince, aw.smooth < adaptLow, now)
	cool := adaptCool << aw.reversals
	if aw.reversals > 0 && now-aw.changed > 4*cool { // the weight has settled
		aw.reversals--
	}
	if aw.changed != 0 && now-aw.changed < cool {
		return false
	}
	lower := aw.highSince != 0 && now-aw.highSince >= adaptLower && aw.steps < maxStepsDown
	raise := aw.lowSince != 0 && now-aw.lowSince >= adaptRaise && aw.steps > 0
	switch {
	case lower:
		aw.steps++
	case raise:
		aw.steps--
	default:
		return false
	}
	if aw.changed != 0 && lower != aw.lowered {
		aw.reversals = min(aw.reversals+1, maxReversals)
	}
	aw.changed, aw.lowered = now, lower
	aw.highSince, aw.lowSince = 0, 0 // start the two periods again
	return true
}

// since records when a condition became true; zero while it is false.
func since(at *time.Duration, holds bool, now time.Duration) {
	switch {
	case !holds:
		*at = 0
	case *at == 0:
		*at = now
	}
}
