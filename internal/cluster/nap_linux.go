package cluster

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// nap sleeps for less than a millisecond. A timer of the Go runtime is rounded up to a
// millisecond if the process has nothing else to do.
type nap struct{ f *os.File }

// newNap returns a nap for one goroutine.
func newNap() *nap {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return &nap{} // sleeps like other systems then
	}
	return &nap{os.NewFile(uintptr(fd), "timerfd")}
}

func (np *nap) sleep(d time.Duration) {
	if np.f != nil && np.set(d) == nil {
		var expirations [8]byte
		if _, err := np.f.Read(expirations[:]); err == nil {
			return
		}
	}
	time.Sleep(d)
}

func (np *nap) set(d time.Duration) error {
	conn, err := np.f.SyscallConn()
	if err != nil {
		return err
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(1, d.Nanoseconds()))}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = unix.TimerfdSettime(int(fd), 0, &spec, nil) }); err != nil {
		return err
	}
	return failed
}

func (np *nap) close() {
	if np.f != nil {
		_ = np.f.Close()
	}
}
