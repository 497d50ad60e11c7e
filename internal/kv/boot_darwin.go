package kv

import (
	"time"

	"golang.org/x/sys/unix"
)

// bootTime reads CLOCK_MONOTONIC. On Darwin it advances while the machine sleeps
// (CLOCK_UPTIME_RAW is the clock that stops).
func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("kv: CLOCK_MONOTONIC: " + err.Error())
	}
	return time.Duration(ts.Nano())
}

// BootClockID returns "", for unknown: bootTime does not read CLOCK_BOOTTIME, which
// clients in other languages would read.
func BootClockID() string { return "" }
