package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// soak runs the command beside a sidecar that is restarted at every interval, and plays no
// conversations. The command finds the path of a file in $CACHESIDECAR_RESTARTS: a line for each
// end and each start of a sidecar, "SIGNAL down NS" and "SIGNAL up NS" of the boot clock.
func soak(ctx context.Context, o options, root, dir string, stdout, stderr io.Writer) (status int, err error) {
	r, err := start(root, dir)
	if err != nil {
		return 1, err
	}
	defer func() { r.stop() }()
	_ = r.client.Close()
	r.client = nil
	name := filepath.Join(dir, "restarts")
	notes, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 1, err
	}
	defer notes.Close()
	os.Setenv("CACHESIDECAR_RESTARTS", name)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		status, err = execute(ctx, o, "", r.socket, stdout, stderr)
	}()
	n, failed := r.restarts(o.restart, notes, ended)
	<-ended
	fmt.Fprintf(stdout, "%d restarts of the sidecar\n", n)
	if failed != nil {
		return 1, errors.Join(failed, err)
	}
	return status, err
}

// restarts ends the sidecar and starts it anew, by turns gently and not, until the command has
// ended. It returns how often.
func (r *real) restarts(interval time.Duration, notes io.Writer, ended <-chan struct{}) (n int, err error) {
	signals := []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}
	for ; ; n++ {
		select {
		case <-ended:
			return n, nil
		case end := <-r.ended:
			r.ended <- end
			return n, fmt.Errorf("the sidecar has ended by itself: %w\n%s", end, r.log.Bytes())
		case <-time.After(interval):
		}
		sig := signals[n%len(signals)]
		fmt.Fprintf(notes, "%v down %d\n", unix.SignalName(sig), bootNow())
		if err := r.restart(sig); err != nil {
			return n, err
		}
		fmt.Fprintf(notes, "%v up %d\n", unix.SignalName(sig), bootNow())
	}
}

// restart ends the sidecar by a signal, and starts the next one on its socket and in its folder.
func (r *real) restart(sig syscall.Signal) error {
	if err := r.cmd.Process.Signal(sig); err != nil {
		return err
	}
	select {
	case <-r.ended:
	case <-time.After(20 * time.Second):
		return fmt.Errorf("the sidecar has not ended 20 s after %v", sig)
	}
	next := exec.Command(r.cmd.Path, r.cmd.Args[1:]...)
	next.Dir, next.Env, next.Stdout, next.Stderr = r.cmd.Dir, r.cmd.Env, r.cmd.Stdout, r.cmd.Stderr
	r.log.Reset()
	if err := next.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	r.cmd, r.ended = next, ended
	go func() { ended <- next.Wait() }()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		c, err := net.Dial("unix", r.socket)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the sidecar does not serve 20 s after %v: %w", sig, err)
		}
	}
}

// bootNow returns the machine's boot clock in nanoseconds, with an error below a millisecond.
func bootNow() int64 {
	return int64(kv.NewSystemClock().Read().Boot)
}
