//go:build !race

package segment

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// newRegion reserves size bytes of zeroed memory outside the Go heap. Pages use memory
// only once they are touched.
func newRegion(size int64) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, mmapFlags)
	if err != nil {
		return nil, fmt.Errorf("reserve %d B of memory: %w", size, err)
	}
	return b, nil
}

func freeRegion(b []byte) error { return unix.Munmap(b) }

// discard gives the pages of b back to the system. Afterwards b reads as zeros, or keeps
// its bytes if the system declines. The store relies on neither.
func discard(b []byte) { _ = unix.Madvise(b, unix.MADV_DONTNEED) }

const heapArena = false
