// Package proctest lets the real processes of tests stand still.
package proctest

import (
	"os"
	"syscall"
	"testing"
)

// Stop sends SIGSTOP to a child process and returns when all its threads stand
// still: after the signal they go on for a while, the longer the busier the
// machine is. SIGCONT lets it go on.
func Stop(t testing.TB, child *os.Process) {
	t.Helper()
	if err := child.Signal(syscall.SIGSTOP); err != nil {
		t.Fatalf("SIGSTOP to process %d: %v", child.Pid, err)
	}
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(child.Pid, &status, syscall.WUNTRACED, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || !status.Stopped() {
			t.Fatalf("process %d does not stop: %v, status %#x", child.Pid, err, status)
		}
		return
	}
}
