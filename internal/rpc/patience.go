package rpc

import (
	"os"
	"sync/atomic"
	"time"
)

// patience is how long requests that are being written may take, as long as the peer
// takes some of them: while one of their calls waits, and for the write's timeout at
// least. Their memory would wait on for nothing after that.
type patience struct {
	calls atomic.Int64 // until when one waits, UnixNano
	least atomic.Int64 // from when the write has first waited; zero is not yet
}

// begin begins a write of requests of which the last waits until then.
func (p *patience) begin(last time.Time) {
	p.calls.Store(last.UnixNano())
	p.least.Store(0)
}

// blocks is called before the write waits.
func (p *patience) blocks(timeout time.Duration) error {
	now := time.Now().UnixNano()
	p.least.CompareAndSwap(0, now+int64(timeout))
	if now > max(p.least.Load(), p.calls.Load()) {
		return os.ErrDeadlineExceeded
	}
	return nil
}
