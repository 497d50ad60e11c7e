//go:build !linux

package main

import (
	"os/exec"
	"time"
)

// monotonic returns zero: there is no systemd here.
func monotonic() time.Duration { return 0 }

// endWithParent does nothing on this system.
func endWithParent(*exec.Cmd) {}
