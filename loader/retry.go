package loader

import (
	"math"
	"sync"
	"time"
)

// Backoff returns the wait before a retry (the first is 0): uniform between
// nothing and base doubled with each retry, up to most. Full jitter, as in
// Brooker, Exponential Backoff and Jitter (AWS, 2015): those who failed
// together do not come back together. random is uniform in [0, 1).
func Backoff(retry int, base, most time.Duration, random float64) time.Duration {
	ceiling := math.Min(float64(most), float64(base)*math.Pow(2, float64(retry)))
	return time.Duration(random * ceiling)
}

// Budget bounds retries to a share of the requests: where everything fails, an
// origin gets that share on top, and not a multiple. Each request adds the
// share, up to the reserve; each retry takes one.
type Budget struct {
	share, reserve float64

	mu   sync.Mutex
	left float64
}

// NewBudget returns a full budget.
func NewBudget(share, reserve float64) *Budget {
	return &Budget{share: share, reserve: reserve, left: reserve}
}

// Request counts a request.
func (b *Budget) Request() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = math.Min(b.reserve, b.left+b.share)
}

// Retry takes a retry, if there is one.
func (b *Budget) Retry() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}
