//go:build !linux

package segment

import (
	"errors"
	"os"
)

var errKept = errors.New("memory is kept on Linux only")

func newMemory(int64) (*os.File, error)         { return nil, errKept }
func lockMemory(*os.File) error                 { return errKept }
func mapMemory(*os.File, int64) ([]byte, error) { return nil, errKept }
func punchMemory(*os.File, int64, int64)        {}
func unmapMemory([]byte) error                  { return nil }
func discardKept([]byte)                        {}
func useLargePage([]byte)                       {}
