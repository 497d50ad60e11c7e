package server

import (
	"runtime"
	"time"

	"golang.org/x/time/rate"
)

// ease yields the processors to other goroutines when many connections come or go at
// once. A few pass at once; the rest pass in groups, one each millisecond, as the rate
// allows. Ten thousand connections in a row would delay the requests of other clients
// until the last one.
type ease struct{ limit *rate.Limiter }

// New connections wait in one queue of the system, of net.core.somaxconn connections of
// all users. A full queue, of 4,096, must be empty long before a client gives up, after
// 250 ms. The rate is that of one goroutine, on however many processors.
const (
	comes     = 25_000 // connections a second
	comesOnce = 64
)

// Each connection that goes has its own goroutine.
const (
	goes     = 4000 // connections a second and processor
	goesOnce = 16
)

// PerProcessor returns n times the number of processors that Go uses.
func PerProcessor(n float64) float64 { return n * float64(runtime.GOMAXPROCS(0)) }

func newEase(perSecond float64, atOnce int) *ease {
	return &ease{rate.NewLimiter(rate.Limit(perSecond), atOnce)}
}

// waitTurn waits until the caller's turn, or until over is closed. All callers whose turns
// are in the same millisecond go on together, because waking a thread for each would cost
// more than their work.
func (e *ease) waitTurn(over <-chan struct{}) {
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
