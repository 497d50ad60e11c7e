package rpc

import (
	"time"

	"golang.org/x/time/rate"
)

// ease lets others have the processors where many connections come or go at once: a few
// pass as they come, and then as many each millisecond as the rate has it. Ten thousand
// that come or go in a row would keep others' requests waiting until the last one.
type ease struct{ limit *rate.Limiter }

// What comes waits in one queue of the system, of net.core.somaxconn connections of all
// users: a full one, of 4,096, is to be empty long before a client gives up, after 250 ms.
// The rate is that of one goroutine, on however many processors.
const (
	comes     = 25_000 // connections a second
	comesOnce = 64
)

// What goes has its own goroutine each.
const (
	goes     = 4000 // connections a second and processor
	goesOnce = 16
)

func newEase(perSecond float64, atOnce int) *ease {
	return &ease{rate.NewLimiter(rate.Limit(perSecond), atOnce)}
}

// pass waits until it is the caller's turn, or all is over. Those whose turns are in the
// same millisecond go on together, since to wake a thread for each would cost more than
// what they do.
func (e *ease) pass(over <-chan struct{}) {
	d := e.limit.Reserve().Delay()
	if d <= 0 {
		return
	}
	t := time.NewTimer((d + time.Millisecond - 1).Truncate(time.Millisecond))
	defer t.Stop()
	select {
	case <-t.C:
	case <-over:
	}
}
