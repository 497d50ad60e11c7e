//go:build !linux

package transport

import "time"

// Unsent is zero: how much a socket has sent that the peer has not read is not known.
func Unsent(int) int { return 0 }

// limitUnsent leaves it to the system how long it keeps what a peer does not take.
func limitUnsent(int, time.Duration) error { return nil }
