package kv

import (
	"time"

	"golang.org/x/sys/unix"
)

// bootTime reads CLOCK_MONOTONIC, which on Darwin advances while the machine
// sleeps (CLOCK_UPTIME_RAW is the one that stops).
func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("kv: CLOCK_MONOTONIC: " + err.Error())
	}
	return time.Duration(ts.Nano())
}

// BootClockID is unknown: the clock above is no CLOCK_BOOTTIME, which clients in
// other languages would read.
func BootClockID() string { return "" }
