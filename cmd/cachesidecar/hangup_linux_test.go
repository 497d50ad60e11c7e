package main

import (
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestHangupAtStart checks that SIGHUP does not end a sidecar that is not serving yet,
// and ends other commands. Each process blocks while it reports a usage error, because
// its stderr takes only a part of it.
func TestHangupAtStart(t *testing.T) {
	// If nohup runs the test, SIGHUP is ignored here, and children would inherit that.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for command, ends := range map[string]bool{"run": false, "watch": true} {
		r, w, err := os.Pipe()
		testenv.Must(t, err)
		defer r.Close()
		size, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096)
		testenv.Must(t, err)
		cmd := exec.Command(binary(), command, "--"+strings.Repeat("x", 4*size))
		cmd.Stderr = w
		endWithParent(cmd)
		testenv.Must(t, cmd.Start())
		_ = w.Close()
		testenv.Eventually(t, "the mistake to be told", func() bool {
			n, err := unix.IoctlGetInt(int(r.Fd()), unix.TIOCINQ)
			return err == nil && n > 0
		})
		testenv.Must(t, cmd.Process.Signal(syscall.SIGHUP))
		ended := make(chan struct{})
		go func() { // ends with the process
			defer close(ended)
			_ = cmd.Wait()
		}()
		if ends {
			<-ended
		}
		b := make([]byte, 64<<10)
		for n := 1; n > 0; {
			n, _ = r.Read(b)
		}
		<-ended
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if ends && status.Signal() != syscall.SIGHUP || !ends && status.ExitStatus() != exitUsage {
			t.Errorf("%s: %v", command, cmd.ProcessState)
		}
	}
}
