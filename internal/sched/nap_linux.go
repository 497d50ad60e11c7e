package sched

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Nap sleeps for less than a millisecond. A timer of the Go runtime is rounded up to a
// millisecond if the process has nothing else to do.
type Nap struct{ f *os.File }

// NewNap returns a Nap for one goroutine.
func NewNap() *Nap {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return &Nap{} // sleeps like other systems then
	}
	return &Nap{os.NewFile(uintptr(fd), "timerfd")}
}

// Sleep sleeps for d.
func (n *Nap) Sleep(d time.Duration) {
	if n.f != nil && n.setTimer(d) == nil {
		var expirations [8]byte
		if _, err := n.f.Read(expirations[:]); err == nil {
			return
		}
	}
	time.Sleep(d)
}

func (n *Nap) setTimer(d time.Duration) error {
	conn, err := n.f.SyscallConn()
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

// Close frees what it sleeps by.
func (n *Nap) Close() {
	if n.f != nil {
		_ = n.f.Close()
	}
}
