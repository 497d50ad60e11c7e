package attacks

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/proctest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// signals is the attack that needs no victim.
var signals = attack{
	name:  "signals",
	tries: "SIGTERM and SIGINT at any moment of the start; SIGHUP, SIGUSR1, SIGUSR2 and SIGPIPE while it serves",
	bound: "the process ends in order, or goes on",
}

// signalsAtStart ends sidecars at random moments of their start. None may leave a socket.
// Violations count as missing.
func signalsAtStart(t *testing.T) *result {
	r := &result{attack: &signals, why: map[string]int{}}
	dir := folder(t)
	bad := func(why string) { r.missing++; r.why[why]++ }
	run := func(socket string) *exec.Cmd {
		cmd := exec.Command(command(t), "run", "--node", "s", "--socket", socket, "--http", "off", "--l2-size", "8MiB")
		cmd.Env = scrubbed()
		proctest.EndWithParent(cmd)
		testenv.Must(t, cmd.Start())
		return cmd
	}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 30 {
		socket := filepath.Join(dir, "s.sock")
		cmd := run(socket)
		// The random moment is what is tested.
		time.Sleep(time.Duration(random.IntN(80)) * time.Millisecond)
		sent := []syscall.Signal{syscall.SIGTERM, syscall.SIGINT}[i%2]
		_ = cmd.Process.Signal(sent)
		_ = cmd.Wait()
		status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if status.Exited() && status.ExitStatus() != 0 || status.Signaled() && status.Signal() != sent {
			bad(cmd.ProcessState.String())
		}
		if _, err := os.Lstat(socket); err == nil {
			bad("a socket is left")
			_ = os.Remove(socket)
		}
		r.count++
	}
	for _, sent := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE} {
		socket := filepath.Join(dir, "s.sock")
		cmd := run(socket)
		openSoon(t, socket)
		_ = cmd.Process.Signal(sent)
		// A fatal signal may leave files behind, but another sidecar must be able to
		// start.
		if sent != syscall.SIGHUP {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			cmd = run(socket)
			openSoon(t, socket)
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if !cmd.ProcessState.Success() {
			bad(sent.String() + ": " + cmd.ProcessState.String())
		}
		if _, err := os.Lstat(socket); err == nil {
			bad(sent.String() + ": a socket is left")
			_ = os.Remove(socket)
		}
		r.count++
	}
	return r
}

// openSoon waits until a starting sidecar serves.
func openSoon(t *testing.T, socket string) {
	testenv.Succeeds(t, "the sidecar to serve", func() error {
		c, err := open(t.Context(), socket, 5*time.Second)
		if err == nil {
			err = c.Close()
		}
		return err
	})
}
