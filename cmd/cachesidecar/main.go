// Command cachesidecar runs a sidecar, and talks to the sidecar on this host.
//
// It turns flags, environment and a file into a configuration, and answers into text. It
// stores no data and does not know the cache's tiers; it uses the packages sidecar and
// client. Data goes to stdout, everything else to stderr. The exit status is 0 for
// success; 1 for a miss, a condition that is not met or a check that failed; 2 for wrong
// usage; 3 if the sidecar cannot be reached; 4 if it did not answer in time, or not all
// hosts have acknowledged.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
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
	if commandOf(os.Args) == "run" { // from here on SIGHUP does not end the sidecar
		p.hangup = make(chan os.Signal, 1)
		signal.Notify(p.hangup, syscall.SIGHUP)
	}
	os.Exit(p.run(ctx, os.Args))
}

// program is one run of the command, with its input and outputs.
type program struct {
	in       io.Reader
	out, err io.Writer
	log      *logs.Log // the log of run, which writes to the original err
	hangup   chan os.Signal
}

// commandOf returns the command that a command line names; "" if there is none.
func commandOf(args []string) string {
	for _, arg := range args[1:] {
		if !strings.HasPrefix(arg, "-") {
			return arg
		}
	}
	return ""
}

// usageError is a mistake in the use of the command.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// errMiss ends the command with status 1 and without a message.
var errMiss = errors.New("miss")

// run executes a command line and returns the exit status.
func (p *program) run(ctx context.Context, args []string) int {
	app := p.app()
	err := app.RunContext(ctx, reorder(app, args))
	defer func() {
		if p.log != nil {
			p.log.Close(logEnd)
		}
	}()
	status := exitStatus(err)
	switch {
	case err == nil, errors.Is(err, errMiss):
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(p.err, "cachesidecar: interrupted")
		return exitMiss
	default:
		fmt.Fprintln(p.err, "cachesidecar:", logs.Lines(err.Error()))
		if status == exitUsage {
			fmt.Fprintln(p.err, "Run \"cachesidecar help\" for how it is used.")
		}
	}
	return status
}

// exitStatus returns the exit status for an error. A sidecar that accepts the connection
// but sends nothing is running, although the client calls it unavailable. Therefore
// deadlines are checked first.
func exitStatus(err error) int {
	var usage *usageError
	var topic cli.ExitCoder // from "help" for an unknown command
	var answer *wire.Error  // from bench's connections
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage), errors.As(err, &topic), errors.Is(err, client.ErrBadRequest),
		errors.As(err, &answer) && answer.Status == wire.BadRequest:
		return exitUsage
	case errors.Is(err, errStory):
		return exitMiss
	case timedOut(err):
		return exitTimeout
	case errors.Is(err, client.ErrNoOwner): // this sidecar is reachable, the owner is not
		return exitMiss
	case errors.Is(err, client.ErrUnavailable):
		return exitConnect
	}
	return exitMiss
}

func timedOut(err error) bool {
	for _, e := range []error{client.ErrTimeout, context.DeadlineExceeded, os.ErrDeadlineExceeded} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
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
				return usagef("there is no command %q: see \"cachesidecar help\"", c.Args().First())
			}
			return usagef("no command given")
		},
		Commands: []*cli.Command{
			p.runCommand(), p.getCommand(), p.setCommand(), p.delCommand(), p.touchCommand(), p.incrCommand(),
			p.statsCommand(), p.flushCommand(), p.membersCommand(), p.ringCommand(), p.watchCommand(), p.warmCommand(), p.verifyCommand(), p.benchCommand(),
			p.demoCommand(), p.healthCommand(), p.configCommand(), p.keyCommand(), p.versionCommand(),
		},
	}
	for _, c := range app.Commands {
		prepare(c)
	}
	return app
}

// prepare makes a command and its subcommands report mistakes as usage errors.
func prepare(c *cli.Command) {
	c.OnUsageError = onUsageError
	// Otherwise "get help" would explain get, and a key named help could not be read.
	c.HideHelpCommand = c.Subcommands == nil
	if c.Subcommands != nil && c.Action == nil {
		name := c.Name
		c.Action = func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("there is no command \"%s %s\": see \"cachesidecar help %s\"", name, c.Args().First(), name)
			}
			return usagef("%s: no command given: see \"cachesidecar help %s\"", name, name)
		}
	}
	for _, sub := range c.Subcommands {
		prepare(sub)
	}
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

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Flags that client commands share.
var (
	socketFlag  = &cli.StringFlag{Name: "socket", Usage: "the sidecar's socket `PATH` (default: $CACHESIDECAR_SOCKET, or where one is found)"}
	tokenFlag   = &cli.StringFlag{Name: "token-file", Usage: "show the sidecar the token in `FILE` (default: $" + envTokenFile + ", or none)"}
	timeoutFlag = &cli.DurationFlag{Name: "timeout", Usage: "wait this `TIME` for the answer", Value: 10 * time.Second}
	jsonFlag    = &cli.BoolFlag{Name: "json", Usage: "print one JSON document", DisableDefaultText: true}
	nsFlag      = &cli.StringFlag{Name: "ns", Usage: "the `NAMESPACE`", Value: "default", Action: named}
)

func clientFlags(more ...cli.Flag) []cli.Flag {
	return append(more, socketFlag, tokenFlag, timeoutFlag)
}

// envTokenFile is the environment variable of --token-file.
const envTokenFile = "CACHESIDECAR_TOKEN_FILE"

// clientConfig returns the client's configuration from the flags of every client command.
func clientConfig(c *cli.Context, path string, timeout time.Duration) client.Config {
	return client.Config{
		Socket: path, TokenFile: tokenFile(c), Name: "cachesidecar-cli", Conns: 1, DialTimeout: timeout, RequestTimeout: timeout,
	}
}

func tokenFile(c *cli.Context) string { return cmp.Or(c.String("token-file"), os.Getenv(envTokenFile)) }

// named refuses an empty namespace, which an unset shell variable gives. An empty
// namespace would mean all namespaces, or the default one.
func named(_ *cli.Context, ns string) error {
	if ns == "" {
		return usagef(`--ns "": give a namespace's name, or leave the flag out`)
	}
	return nil
}

// withClient connects and calls f with a context that ends at the timeout.
func (p *program) withClient(c *cli.Context, f func(ctx context.Context, cl *client.Client) error) error {
	path, timeout, err := socketAndTimeout(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, timeout)
	defer cancel()
	cl, err := client.Dial(ctx, clientConfig(c, path, timeout))
	if err == nil {
		defer cl.Close()
		if ns := c.String("ns"); ns != "" {
			cl = cl.InNamespace(ns)
		}
		err = f(ctx, cl)
	}
	return explain(err, timeout)
}

// socketAndTimeout reads the flags of every client command. It returns an error if there
// is no socket.
func socketAndTimeout(c *cli.Context) (path string, timeout time.Duration, err error) {
	if timeout = c.Duration("timeout"); timeout <= 0 {
		return "", 0, usagef("--timeout %v: give a time above zero, such as 10s", timeout)
	}
	if path, err = unixsock.Find(c.String("socket")); err != nil {
		return "", 0, fmt.Errorf("%w: %w", client.ErrUnavailable, err)
	}
	return path, timeout, nil
}

// explain adds to an error what the user may do.
func explain(err error, timeout time.Duration) error {
	switch {
	case timedOut(err):
		return fmt.Errorf("%w (--timeout is %v: wait longer with it, or see the sidecar's log)", err, timeout)
	case errors.Is(err, client.ErrNoOwner):
		return fmt.Errorf("%w (nothing was done; \"cachesidecar members\" shows the hosts)", err)
	case errors.Is(err, client.ErrUnavailable):
		return fmt.Errorf("%w: is the sidecar running there? Start it with \"cachesidecar run\", or name its socket with --socket", err)
	}
	return err
}

// waitFor calls f, which reads stdin. It returns when f returns or ctx ends. If ctx ends
// first, f continues: only the end of the process, which is near, can interrupt such a
// read.
func waitFor[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// args checks the number of arguments. A negative most means no upper limit.
func args(c *cli.Context, least, most int) error {
	wrong := "few"
	switch n := c.NArg(); {
	case n > most && most >= 0:
		wrong = "many"
	case n >= least:
		return nil
	}
	use := strings.TrimSpace(c.Command.HelpName + " " + c.Command.ArgsUsage)
	return usagef("%s: %d arguments are too %s; it is used so: %s", c.Command.Name, c.NArg(), wrong, use)
}
