package verify

import "time"

// staleUpTo has the upper ends of the distribution's buckets. Zero is for reads that were
// not stale at all; the last bucket also has everything beyond its end.
var staleUpTo = [...]time.Duration{
	0, time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond,
	10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, time.Minute,
}

// staleness is a distribution of how stale reads were.
type staleness struct {
	counts [len(staleUpTo)]int64
	max    time.Duration
}

func (s *staleness) add(d time.Duration) {
	s.max = max(s.max, d)
	for i, end := range staleUpTo {
		if d <= end || i == len(staleUpTo)-1 {
			s.counts[i]++
			return
		}
	}
}

func (s *staleness) merge(o *staleness) {
	for i, n := range o.counts {
		s.counts[i] += n
	}
	s.max = max(s.max, o.max)
}
