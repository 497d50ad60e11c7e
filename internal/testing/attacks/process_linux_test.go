package attacks

import (
	"os/exec"
	"syscall"
)

// endWithParent makes a process end when the tests are killed, too.
func endWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
