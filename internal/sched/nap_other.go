//go:build !linux

package sched

import "time"

// Nap sleeps.
type Nap struct{}

// NewNap returns a Nap for one goroutine.
func NewNap() *Nap { return &Nap{} }

// Sleep sleeps for d.
func (*Nap) Sleep(d time.Duration) { time.Sleep(d) }

// Close does nothing.
func (*Nap) Close() {}
