package kv

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bootTime reads CLOCK_BOOTTIME. The runtime's own monotonic clock does not serve,
// because it stops while the machine sleeps.
func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("kv: CLOCK_BOOTTIME: " + err.Error()) // Linux has it since 2.6.39
	}
	return time.Duration(ts.Nano())
}

// BootClockID names the boot clock of this process. Processes with the same id read the
// same clock. The id is the machine's boot id, a space, and the name of the time
// namespace, because a time namespace shifts the clock. It is "" if unknown.
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
