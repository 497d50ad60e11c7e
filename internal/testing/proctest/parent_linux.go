package proctest

import (
	"os/exec"
	"syscall"
)

// EndWithParent makes a process end when the tests are killed, too.
func EndWithParent(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
