// Package machine tells what a sidecar needs and what the machine gives this process: memory,
// file descriptors, and how hard both are pressed.
//
// Input is what the operating system reports, and what a sidecar wants. Output is limits,
// shares and a number for the pressure. A value that the system does not report counts as
// no limit, or as no pressure. The package starts no goroutine and keeps nothing.
package machine

import "github.com/KimMachineGun/automemlimit/memlimit"

// Memory returns the lower of the machine's memory and the cgroup's limit, in bytes, with
// the words for it. It returns zero if neither is known.
func Memory() (bytes int64, what string) {
	const most = 1 << 62 // a limit above it is none
	if n, err := memlimit.FromSystem(); err == nil && n < most {
		bytes, what = int64(n), "the machine has"
	}
	if n, err := memlimit.FromCgroup(); err == nil && n < most && (bytes == 0 || int64(n) < bytes) {
		bytes, what = int64(n), "the cgroup allows"
	}
	return bytes, what
}
