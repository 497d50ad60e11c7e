package peers

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// CPU returns the processor time that the server's process has taken so far.
func (s *Server) CPU() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^s.cmd.Process.Pid<<3|2), &t); err != nil { // CPUCLOCK_SCHED of a process
		return 0, fmt.Errorf("the processor time of %s: %w", s.Name, err)
	}
	return time.Duration(t.Nano()), nil
}
