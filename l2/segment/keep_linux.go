package segment

import (
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// newMemory makes a file without a name, of size bytes that take memory once they are touched. It
// cannot be made shorter, so its mapping stays valid whatever another process does.
func newMemory(size int64) (*os.File, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("cachesidecar", flags|unix.MFD_NOEXEC_SEAL) // vm.memfd_noexec may ask for it
	if errors.Is(err, unix.EINVAL) {                                        // before Linux 6.3
		fd, err = unix.MemfdCreate("cachesidecar", flags)
	}
	if err != nil {
		return nil, fmt.Errorf("make the memory that is kept: %w", err)
	}
	f := os.NewFile(uintptr(fd), "cachesidecar")
	if err = f.Truncate(size); err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK)
	}
	if err == nil {
		err = lockMemory(f)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("reserve %d B of memory that is kept: %w", size, err)
	}
	return f, nil
}

// lockMemory makes this process the only one that uses a file, until it ends.
func lockMemory(f *os.File) error {
	if seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err != nil || seals&unix.F_SEAL_SHRINK == 0 {
		return errors.New("it is no memory of a sidecar")
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock); err != nil {
		return fmt.Errorf("another process uses it: %w", err)
	}
	return nil
}

// mapMemory maps the beginning of a file, at an address at which there may be large pages if that is free.
func mapMemory(f *os.File, size int64) ([]byte, error) {
	wide := uintptr(size + largePage)
	at, err := unix.MmapPtr(-1, 0, nil, wide, unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err == nil {
		err = unix.MunmapPtr(at, wide)
	}
	if err == nil {
		at, err = unix.MmapPtr(int(f.Fd()), 0, unsafe.Add(at, -uintptr(at)%largePage), uintptr(size),
			unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	}
	if err != nil {
		return nil, fmt.Errorf("map %d B of memory that is kept: %w", size, err)
	}
	return unsafe.Slice((*byte)(at), size), nil
}

// punchMemory gives the memory of a part of a file back to the system.
func punchMemory(f *os.File, off, n int64) {
	_ = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func unmapMemory(b []byte) error {
	return unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b)))
}

// discardKept gives the pages of b back to the system.
func discardKept(b []byte) { _ = unix.Madvise(b, unix.MADV_REMOVE) }

// useLargePage has the system copy a part into a large page. One before Linux 6.1 declines.
func useLargePage(part []byte) { _ = unix.Madvise(part, unix.MADV_COLLAPSE) }
