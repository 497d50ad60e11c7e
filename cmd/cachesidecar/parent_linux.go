package main

import (
	"os/exec"
	"syscall"
)

// endWithParent makes the process of cmd end with this process, even if this process is
// killed.
func endWithParent(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
