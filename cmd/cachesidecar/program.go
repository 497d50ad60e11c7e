package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

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
	exitDone = iota
	exitMiss
	exitUsage
	exitConnect
	exitTimeout
)

var exitMeans = [...]string{
	exitDone:    "done",
	exitMiss:    "no value, a condition that is not met, or another failure",
	exitUsage:   "a wrong command line or setting",
	exitConnect: "no sidecar could be reached",
	exitTimeout: "no answer in time, or not all hosts have acknowledged",
}

// exitStatuses returns a line for each of them.
func exitStatuses() string {
	lines := make([]string, len(exitMeans))
	for status, means := range exitMeans {
		lines[status] = fmt.Sprintf("%d  %s", status, means)
	}
	return strings.Join(lines, "\n")
}

// checkedWriter keeps the first error. The help is written without a look at errors.
type checkedWriter struct {
	w   io.Writer
	err error
}

func (writer *checkedWriter) Write(b []byte) (n int, err error) {
	n, err = writer.w.Write(b)
	writer.err = cmp.Or(writer.err, err)
	return n, err
}

// errStatus1 ends the command with status 1 and without a message.
var errStatus1 = errors.New("miss")

func timedOut(err error) bool {
	return errors.Is(err, cachesidecar.ErrTimeout) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, os.ErrDeadlineExceeded)
}

// sleep waits for a time, or for the end of ctx, which is an error.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// background runs f in a goroutine. stop ends the context of f, and waits for f.
func background(ctx context.Context, f func(ctx context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { f(ctx) }) // ends with ctx
	return func() { cancel(); running.Wait() }
}
