package rpc

import (
	"os"
	"sync/atomic"
	"time"
)

// patience bounds a write of requests whose peer takes some of them: the write may go on
// while one of its calls waits, and for the write timeout at least. After that its memory
// would be in use for nothing.
type patience struct {
	calls atomic.Int64 // when the last of the calls expires, UnixNano
	least atomic.Int64 // first wait + timeout, UnixNano; zero: no wait yet
}

// begin begins a write of requests. last is when the last of their calls expires.
func (p *patience) begin(last time.Time) {
	p.calls.Store(last.UnixNano())
	p.least.Store(0)
}

// beforeWait is called before the write waits. It returns an error if the patience is over.
func (p *patience) beforeWait(timeout time.Duration) error {
	now := time.Now().UnixNano()
	p.least.CompareAndSwap(0, now+int64(timeout))
	if now > max(p.least.Load(), p.calls.Load()) {
		return os.ErrDeadlineExceeded
	}
	return nil
}
