package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/logs"
)

// program is one run of the command, with its input and outputs.
type program struct {
	in       io.Reader
	out, err io.Writer
	log      *logs.Log // the log of run, which writes to the original err
	hangup   chan os.Signal
}

// Exit statuses.
const (
	exitDone    = 0
	exitMiss    = 1
	exitUsage   = 2
	exitConnect = 3
	exitTimeout = 4
)

// checkedWriter keeps the first error. The help is written without a look at errors.
type checkedWriter struct {
	w   io.Writer
	err error
}

func (c *checkedWriter) Write(b []byte) (n int, err error) {
	n, err = c.w.Write(b)
	c.err = cmp.Or(c.err, err)
	return n, err
}

// usageError is a mistake in the use of the command.
type usageError struct {
	msg string
	err error // nil, or what the message was made from
}

func (e *usageError) Error() string { return e.msg }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{msg: fmt.Sprintf(format, args...)} }

// errMiss ends the command with status 1 and without a message.
var errMiss = errors.New("miss")

func timedOut(err error) bool {
	for _, e := range []error{cachesidecar.ErrTimeout, context.DeadlineExceeded, os.ErrDeadlineExceeded} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// version is set by the linker for releases.
var version = ""

// buildVersion returns the version of this build: the linker's, else the module's.
func buildVersion() string {
	if version != "" {
		return version
	}
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" && bi.Main.Version != "(devel)" {
		return bi.Main.Version
	}
	return "devel"
}
