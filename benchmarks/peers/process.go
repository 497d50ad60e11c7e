package peers

import (
	"bytes"
	"os"
	"os/exec"
	"time"
)

// process is a server's process, with what it says to standard error.
type process struct {
	cmd       *exec.Cmd
	complaint bytes.Buffer
	exited    chan struct{} // closed after it has been waited for
}

// begin starts cmd.
func (pr *process) begin() error {
	pr.cmd.Stderr, pr.exited = &pr.complaint, make(chan struct{})
	if err := pr.cmd.Start(); err != nil {
		return err
	}
	go func() { // ends with the process, which end or a context ends
		_ = pr.cmd.Wait()
		close(pr.exited)
	}()
	return nil
}

// said returns what the process has said.
func (pr *process) said() []byte { return bytes.TrimSpace(pr.complaint.Bytes()) }

// end asks the process to end, waits for it, and kills it if that takes too long.
func (pr *process) end(how os.Signal) {
	_ = pr.cmd.Process.Signal(how)
	select {
	case <-pr.exited:
	case <-time.After(stopTime):
		_ = pr.cmd.Process.Kill()
		<-pr.exited
	}
}
