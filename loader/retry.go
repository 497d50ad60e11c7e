package loader

import (
	"math"
	"sync"
	"time"
)

// Backoff returns the wait before a retry. The first retry has the number 0. The wait is
// uniform between zero and a ceiling: base, doubled with each retry, at most most. This
// is full jitter (Brooker, Exponential Backoff and Jitter, AWS, 2015): callers that
// failed together do not retry together. random is uniform in [0, 1).
func Backoff(retry int, base, most time.Duration, random float64) time.Duration {
	ceiling := math.Min(float64(most), float64(base)*math.Pow(2, float64(retry)))
	return time.Duration(random * ceiling)
}

// Budget limits retries to a share of the requests. If all calls fail, an origin gets
// only that share of additional calls, not a multiple. Each request adds the share, up
// to the reserve. Each retry takes one. Budget is safe for concurrent use.
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

// Retry takes one retry from the budget. It returns false if the budget is empty.
func (b *Budget) Retry() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}
