package transport

import (
	"syscall"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// TestRests checks that the batches of a reader are counted from each time on when it found nothing to
// read, also in the middle of a long frame.
func TestRests(t *testing.T) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	testenv.Must(t, err)
	for _, fd := range fds {
		defer syscall.Close(fd)
	}
	testenv.Must(t, syscall.SetNonblock(fds[0], true))
	in := Input{socket: &Socket{}}
	rests, batches := 0, 0
	in.onBatch = func(int) error { batches++; return nil }
	in.onWait = func() error { rests++; return nil }
	for i, n := range []int{1, looksFrom} {
		if _, err := syscall.Write(fds[1], make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		if in.tryRead(uintptr(fds[0])) {
			t.Fatal(in.rerr)
		}
		if rests != i+1 || batches != i+1 || in.Batches() != 1 {
			t.Errorf("%d rests after %d batches, the last is number %d", rests, batches, in.Batches())
		}
	}
}
