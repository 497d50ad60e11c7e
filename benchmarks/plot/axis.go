package plot

import (
	"errors"
	"fmt"
	"math"
	"strconv"
)

// scale places values on an axis.
type scale struct {
	log       bool
	low, high float64 // logarithms if log is set
	ticks     []Tick
}

// part returns the place of a value along the axis, 0 to 1.
func (s scale) part(v float64) float64 {
	if s.log {
		v = math.Log10(v)
	}
	return (v - s.low) / (s.high - s.low)
}

// scale fits an axis to the values of points.
func (a Axis) scale(series []Series, values func(Point) []float64) (scale, error) {
	least, most := math.Inf(1), math.Inf(-1)
	for _, s := range series {
		for _, p := range s.Points {
			for _, v := range values(p) {
				if math.IsNaN(v) || math.IsInf(v, 0) || a.Log && v <= 0 {
					return scale{}, fmt.Errorf("%s has a value of %v, which has no place", s.Name, v)
				}
				least, most = min(least, v), max(most, v)
			}
		}
	}
	if least > most {
		return scale{}, errors.New("there are no points")
	}
	ticks, write := a.Ticks, a.Format
	if write == nil {
		write = short
	}
	switch {
	case len(ticks) > 0:
	case a.Log:
		ticks = logTicks(least, most, write)
	default:
		ticks = linearTicks(least, most, write)
	}
	s := scale{log: a.Log, low: min(least, ticks[0].At), high: max(most, ticks[len(ticks)-1].At), ticks: ticks}
	if s.low == s.high {
		s.high = s.low + max(1, s.low)
	}
	if a.Log {
		s.low, s.high = math.Log10(s.low), math.Log10(s.high)
	}
	return s, nil
}

// linearTicks returns multiples of 1, 2 or 5 times a power of ten around the values, at
// most eight.
func linearTicks(least, most float64, write func(float64) string) (ticks []Tick) {
	if least == most {
		least, most = least-1, most+1
	}
	step := math.Pow(10, math.Floor(math.Log10(most-least)))
	for _, f := range []float64{0.1, 0.2, 0.5, 1, 2, 5} {
		if first, last := math.Floor(least/(f*step)), math.Ceil(most/(f*step)); last-first <= 7 {
			for i := first; i <= last; i++ {
				ticks = append(ticks, Tick{i * f * step, write(i * f * step)})
			}
			return ticks
		}
	}
	return []Tick{{least, write(least)}, {most, write(most)}}
}

// logTicks returns powers of ten around the values. For less than two decades it adds
// twice and five times each power, as far as the values go.
func logTicks(least, most float64, write func(float64) string) (ticks []Tick) {
	factors := []float64{1}
	if most/least < 100 {
		factors = []float64{1, 2, 5}
	}
	var all []float64
	for e := math.Floor(math.Log10(least)); e <= math.Ceil(math.Log10(most)); e++ {
		for _, f := range factors {
			all = append(all, f*math.Pow(10, e))
		}
	}
	for i, v := range all {
		below := i+1 < len(all) && all[i+1] <= least
		above := i > 0 && all[i-1] >= most
		if !below && !above {
			ticks = append(ticks, Tick{v, write(v)})
		}
	}
	return ticks
}

// short formats a number with k or M for thousands and millions.
func short(v float64) string {
	unit := ""
	switch {
	case math.Abs(v) >= 1e6:
		v, unit = v/1e6, " M"
	case math.Abs(v) >= 1e3:
		v, unit = v/1e3, " k"
	}
	return strconv.FormatFloat(v, 'g', 4, 64) + unit
}
