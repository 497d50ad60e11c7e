// Command cachesidecar runs a sidecar, and talks to the one on this host.
//
// It turns flags, environment and a file into a configuration, and answers
// into text. It holds no data and knows no tier; what it does goes through the
// packages sidecar and client. Data goes to stdout, the rest to stderr; the
// exit status is 0 for done, 1 for a miss, a condition that is not met or a
// check that failed, 2 for usage, 3 if the sidecar cannot be reached, 4 if it
// did not answer in time or not all acknowledged.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/cachesidecar/cachesidecar/client"
)

// Exit statuses.
const (
	exitDone    = 0
	exitMiss    = 1
	exitUsage   = 2
	exitConnect = 3
	exitTimeout = 4
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	p := &program{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	os.Exit(p.run(ctx, os.Args))
}

// program is one run of the command, with what it reads and writes.
type program struct {
	in       io.Reader
	out, err io.Writer
}

// usageError is a mistake in how the command was called.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// errMiss ends with status 1 and says nothing more.
var errMiss = errors.New("miss")

// run executes a command line and returns the exit status.
func (p *program) run(ctx context.Context, args []string) int {
	app := p.app()
	err := app.RunContext(ctx, reorder(app, args))
	if err == nil {
		return exitDone
	}
	if !errors.Is(err, errMiss) {
		fmt.Fprintln(p.err, "cachesidecar:", err)
	}
	var usage *usageError
	switch {
	case errors.As(err, &usage):
		fmt.Fprintln(p.err, "Run \"cachesidecar help\" for how it is used.")
		return exitUsage
	case errors.Is(err, client.ErrUnavailable):
		return exitConnect
	case errors.Is(err, client.ErrTimeout):
		return exitTimeout
	}
	return exitMiss
}

func (p *program) app() *cli.App {
	app := &cli.App{
		Name:            "cachesidecar",
		Usage:           "a cache beside your services: hits at the speed of a socket",
		Reader:          p.in,
		Writer:          p.out,
		ErrWriter:       p.err,
		HideVersion:     true,
		HideHelpCommand: false,
		ExitErrHandler:  func(*cli.Context, error) {},
		OnUsageError:    onUsageError,
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("there is no command %q", c.Args().First())
			}
			return usagef("no command given")
		},
		Commands: []*cli.Command{
			p.runCommand(), p.getCommand(), p.setCommand(), p.delCommand(), p.touchCommand(), p.incrCommand(),
			p.statsCommand(), p.flushCommand(), p.membersCommand(), p.ringCommand(), p.benchCommand(),
			p.healthCommand(), p.configCommand(), p.versionCommand(),
		},
	}
	for _, c := range app.Commands {
		prepare(c)
	}
	return app
}

// prepare makes a command and those below it report mistakes as ours.
func prepare(c *cli.Command) {
	c.OnUsageError = onUsageError
	if c.Subcommands != nil {
		name := c.Name
		c.Action = func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("there is no command %q %q", name, c.Args().First())
			}
			return usagef("%s: no command given", name)
		}
	}
	for _, sub := range c.Subcommands {
		prepare(sub)
	}
}

func onUsageError(_ *cli.Context, err error, _ bool) error { return usagef("%v", err) }

// version is set by the linker for releases.
var version = ""

// buildVersion is the version of this build: the linker's, else the module's.
func buildVersion() string {
	if version != "" {
		return version
	}
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" && bi.Main.Version != "(devel)" {
		return bi.Main.Version
	}
	return "devel"
}

// isTerminal says whether a stream is one.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// socketFlag, timeoutFlag and jsonFlag are every client command's.
var (
	socketFlag  = &cli.StringFlag{Name: "socket", Usage: "the sidecar's socket `PATH` (default: $CACHESIDECAR_SOCKET, or where one is found)"}
	timeoutFlag = &cli.DurationFlag{Name: "timeout", Usage: "wait this long for the answer", Value: 10 * time.Second}
	jsonFlag    = &cli.BoolFlag{Name: "json", Usage: "print one JSON document"}
	nsFlag      = &cli.StringFlag{Name: "ns", Usage: "the `NAMESPACE`", Value: "default"}
)

func clientFlags(more ...cli.Flag) []cli.Flag {
	return append(more, socketFlag, timeoutFlag)
}

// withClient connects and calls f with a context that ends at the timeout.
func (p *program) withClient(c *cli.Context, f func(ctx context.Context, cl *client.Client) error) error {
	timeout := c.Duration("timeout")
	if timeout <= 0 {
		return usagef("--timeout %v: give a time above zero, such as 10s", timeout)
	}
	ctx, cancel := context.WithTimeout(c.Context, timeout)
	defer cancel()
	cl, err := client.Dial(ctx, client.Config{
		Socket: c.String("socket"), Name: "cachesidecar-cli", Conns: 1,
		DialTimeout: min(timeout, 2*time.Second), RequestTimeout: timeout,
	})
	if err != nil {
		return err
	}
	defer cl.Close()
	if ns := c.String("ns"); ns != "" {
		cl = cl.InNamespace(ns)
	}
	return f(ctx, cl)
}

// args checks the number of arguments; most below zero is any.
func args(c *cli.Context, least, most int) error {
	switch n := c.NArg(); {
	case n < least:
		return usagef("%s: %d arguments are too few; it is used so: cachesidecar %s %s", c.Command.Name, n, c.Command.Name, c.Command.ArgsUsage)
	case most >= 0 && n > most:
		return usagef("%s: %d arguments are too many; it is used so: cachesidecar %s %s", c.Command.Name, n, c.Command.Name, c.Command.ArgsUsage)
	}
	return nil
}
