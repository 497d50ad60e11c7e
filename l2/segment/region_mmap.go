//go:build !race

package segment

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// newRegion reserves size bytes of zeroed memory outside the Go heap. Pages
// cost memory only once they are touched.
func newRegion(size int64) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, mmapFlags)
	if err != nil {
		return nil, fmt.Errorf("reserve %d B of memory: %w", size, err)
	}
	return b, nil
}

func freeRegion(b []byte) error { return unix.Munmap(b) }

// discard gives the pages of b back to the system; b reads as zeros after it,
// or keeps its bytes where the system declines. Nobody relies on either.
func discard(b []byte) { _ = unix.Madvise(b, unix.MADV_DONTNEED) }

const heapArena = false
