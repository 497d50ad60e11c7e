//go:build !linux

package faults

import "os/exec"

func endWithParent(*exec.Cmd) {}
