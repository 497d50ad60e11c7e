//go:build !linux || race

package transport

import "syscall"

// The race detector learns from syscall.Read and syscall.Write what happens before what.

func readNow(fd int, b []byte) (int, error)  { return syscall.Read(fd, b) }
func writeNow(fd int, b []byte) (int, error) { return syscall.Write(fd, b) }
