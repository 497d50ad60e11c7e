package kv

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bootTime reads CLOCK_BOOTTIME. The runtime's own monotonic clock stops while the
// machine sleeps, so it will not do.
func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("kv: CLOCK_BOOTTIME: " + err.Error()) // Linux has it since 2.6.39
	}
	return time.Duration(ts.Nano())
}

// BootClockID names this process's boot clock: processes that have the same read
// the same clock. It is the machine's boot id and, since a time namespace sets
// the clock off, that one's name, with a space between; "" is unknown.
func BootClockID() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	namespace, err := os.Readlink("/proc/self/ns/time") // none before Linux 5.6
	if err != nil && !os.IsNotExist(err) {
		return ""
	}
	return strings.TrimSpace(string(boot)) + " " + namespace
}
