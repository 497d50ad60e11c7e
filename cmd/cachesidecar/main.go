// Command cachesidecar runs a sidecar, and talks to the sidecar on this host.
//
// It turns flags, environment and a file into a configuration, and answers into text. It
// stores no data and does not know the cache's tiers; it uses the packages sidecar and
// client. Data goes to stdout, everything else to stderr; exitMeans lists the exit statuses.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/configfile"
	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/wire"
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

// commandOf returns the command that a command line names; "" if there is none.
func commandOf(args []string) string {
	for _, arg := range args[1:] {
		if !strings.HasPrefix(arg, "-") {
			return arg
		}
	}
	return ""
}

// run executes a command line and returns the exit status.
func (p *program) run(ctx context.Context, args []string) int {
	app := p.app()
	if !asksCompletion() {
		args = reorder(app, args)
	} else if slices.Contains(args, "--") {
		return exitDone // cli would run the command
	}
	help := &checkedWriter{w: p.out}
	app.Writer = help
	err := cmp.Or(app.RunContext(ctx, args), help.err)
	defer func() {
		if p.log != nil {
			p.log.Close(logEnd)
		}
	}()
	status := exitStatus(err)
	var wrong configfile.Problems
	switch {
	case err == nil, errors.Is(err, errStatus1):
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(p.err, "cachesidecar: interrupted")
		return exitMiss
	case errors.As(err, &wrong): // with a place each, as compilers write it
		fmt.Fprintf(p.err, "%s\ncachesidecar: %s\n", logs.Lines(wrong.Error()), wrong.Counted())
	default:
		fmt.Fprintln(p.err, "cachesidecar:", logs.Lines(err.Error()))
		// What a sidecar has refused, such as a key, its answer explains.
		if errors.As(err, new(*usageError)) && !strings.Contains(err.Error(), "help") {
			fmt.Fprintln(p.err, "Run \"cachesidecar help\" for how it is used.")
		}
	}
	return status
}

// logEnd is how long the process waits at its end for stderr to accept the last lines.
const logEnd = time.Second

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
	case errors.As(err, &usage), errors.As(err, &topic), errors.Is(err, cachesidecar.ErrBadRequest),
		errors.As(err, &answer) && answer.Status == wire.BadRequest:
		return exitUsage
	case timedOut(err):
		return exitTimeout
	case errors.Is(err, cachesidecar.ErrNoOwner): // this sidecar is reachable, the owner is not
		return exitMiss
	case errors.Is(err, cachesidecar.ErrUnavailable):
		return exitConnect
	}
	return exitMiss
}

// asksCompletion reports whether a script asks for completions.
func asksCompletion() bool { return os.Getenv("_CACHESIDECAR_COMPLETES") != "" }

// app returns the command line's description.
func (p *program) app() *cli.App {
	app := &cli.App{
		Name:  "cachesidecar",
		Usage: "a cache beside your services: hits at the speed of a socket",
		Description: "One program is both the sidecar (run) and a client of the sidecar on this host (all else).\n" +
			"Data goes to stdout, everything else to stderr. Flags stand before or after arguments; -- ends them.\n" +
			"$CACHESIDECAR_SOCKET stands for --socket, and $CACHESIDECAR_TOKEN_FILE for --token-file.\n\n" +
			"Exit status:\n" + exitStatuses(),
		Reader: p.in, Writer: p.out, ErrWriter: p.err,
		HideVersion:          true, // the library's flag prints another text than the command version
		EnableBashCompletion: asksCompletion(),
		ExitErrHandler:       func(*cli.Context, error) {},
		OnUsageError:         onUsageError,
		Flags: []cli.Flag{
			boolFlag("version", "print the version", "v"),
		},
		Before: func(c *cli.Context) error { // otherwise "--version flush" would flush
			if c.Bool("version") && c.NArg() > 0 {
				return usagef("--version before %q: it stands alone", c.Args().First())
			}
			return nil
		},
		Action: func(c *cli.Context) error {
			if c.Bool("version") {
				return p.version(c)
			}
			return noCommand(c, "", c.App.Commands)
		},
		Commands: p.commands(),
	}
	for _, c := range app.Commands {
		prepare(c)
	}
	return app
}

// commands are all commands, in the order of the help.
func (p *program) commands() []*cli.Command {
	return slices.Concat([]*cli.Command{runCommand(p), reloadCommand(p)}, valueCommands(p), listCommands(p),
		[]*cli.Command{statsCommand(p), topCommand(p), watchCommand(p)}, clusterCommands(p),
		[]*cli.Command{
			flushCommand(p), pingCommand(p), healthCommand(p), versionCommand(p),
			warmCommand(p), benchCommand(p), demoCommand(p),
			configCommand(p), keyCommand(p), completionCommand(p), manCommand(p),
		})
}

// prepare makes a command and its subcommands report mistakes as usage errors.
func prepare(c *cli.Command) {
	c.OnUsageError = onUsageError
	// Otherwise "get help" would explain get, and a key named help could not be read.
	c.HideHelpCommand = c.Subcommands == nil
	if c.Subcommands != nil {
		name, list, own := c.Name, c.Subcommands, c.Action
		c.Action = func(c *cli.Context) error {
			if own != nil && c.NArg() == 0 {
				return own(c)
			}
			return noCommand(c, name, list)
		}
	}
	for _, sub := range c.Subcommands {
		prepare(sub)
	}
}
