//go:build linux && !race

package transport

import (
	"syscall"
	"unsafe"
)

// readNow is syscall.Read for a file descriptor that never blocks. It does not tell Go's
// scheduler about the call. The scheduler would wake its monitor for it, a thread that
// takes the processor which the peer's thread is about to use.
func readNow(fd int, b []byte) (int, error) { return ioNow(syscall.SYS_READ, fd, b) }

// writeNow is to syscall.Write what readNow is to syscall.Read.
func writeNow(fd int, b []byte) (int, error) { return ioNow(syscall.SYS_WRITE, fd, b) }

// ioNow neither waits nor allocates.
func ioNow(call uintptr, fd int, b []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	switch errno {
	case 0:
		return int(n), nil
	case syscall.EAGAIN:
		return 0, syscall.EAGAIN // the constant: errno as an error would allocate
	}
	return 0, errno
}
