//go:build !linux

package cluster

import "time"

type nap struct{}

func newNap() *nap { return &nap{} }

func (*nap) sleep(d time.Duration) { time.Sleep(d) }

func (*nap) close() {}
