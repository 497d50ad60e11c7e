// Package proctest stops the real processes of tests, and has them end with the tests.
package proctest

import (
	"os"
	"syscall"
	"testing"
)

// Stop sends SIGSTOP to a child process and returns when all its threads have stopped.
// They run on for a while after the signal, longer on a busy machine. SIGCONT continues
// the process.
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
