package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/internal/configfile"
)

// usageError is a mistake in the use of the command.
type usageError struct {
	msg string
	err error // nil, or what the message was made from
}

func (e *usageError) Error() string { return e.msg }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{msg: fmt.Sprintf(format, args...)} }

// withArgs returns an action that checks the number of arguments first. A negative most
// means no upper limit.
func withArgs(least, most int, act cli.ActionFunc) cli.ActionFunc {
	return func(c *cli.Context) error {
		wrong := "few"
		switch n := c.NArg(); {
		case n > most && most >= 0:
			wrong = "many"
		case n >= least:
			return act(c)
		}
		use := strings.TrimSpace(c.Command.HelpName + " " + c.Command.ArgsUsage)
		return usagef("%s: %d arguments are too %s; it is used so: %s", c.Command.Name, c.NArg(), wrong, use)
	}
}

// noCommand returns the error for a command that is not given, or that does not exist.
// within is the command whose subcommands are meant, if any.
func noCommand(c *cli.Context, within string, commands []*cli.Command) error {
	help := strings.TrimSpace("cachesidecar help " + within)
	if c.NArg() == 0 {
		if within == "" {
			return usagef("no command given")
		}
		return usagef("%s: no command given: see %q", within, help)
	}
	name := c.Args().First()
	var names []string
	for _, c := range commands {
		if !c.Hidden {
			names = append(names, c.Names()...)
		}
	}
	see := ": see"
	if near := configfile.Nearest(name, names); near != "" {
		see = fmt.Sprintf(": did you mean %q? See", near)
	}
	return usagef("there is no command %q%s %q", strings.TrimSpace(within+" "+name), see, help)
}

func flagNames(flags []cli.Flag) (names []string) {
	for _, f := range flags {
		names = append(names, f.Names()...)
	}
	return names
}

// onUsageError adds to an error of the parser what may be meant, and where to read on.
func onUsageError(c *cli.Context, err error, isSubcommand bool) error {
	if !isSubcommand {
		return usagef("%v: flags stand behind the command, as in \"cachesidecar get KEY --json\"", err)
	}
	see := "see"
	if name, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); ok {
		if near := configfile.Nearest(name, flagNames(c.Command.Flags)); near != "" {
			see = fmt.Sprintf("did you mean --%s? See", near)
		}
	}
	return usagef("%s: %s: %s \"%s --help\"", c.Command.Name, badFlag(c.Command.Flags, err), see, c.Command.HelpName)
}

// badValue is what Go's parser says of a value.
var badValue = regexp.MustCompile(`^invalid (?:boolean )?value (".*") for (?:flag )?-([a-z0-9-]+): (.*)$`)

// badFlag returns an error of the parser with the flag as the help names it, and with what to give.
func badFlag(flags []cli.Flag, err error) string {
	m := badValue.FindStringSubmatch(err.Error())
	if m == nil {
		return err.Error()
	}
	value, name, why := m[1], m[2], m[3]
	for _, f := range flags {
		if why != "parse error" || !slices.Contains(f.Names(), name) {
			continue
		}
		switch f.(type) {
		case *cli.BoolFlag:
			why = "give true, false or nothing"
		case *cli.Float64Flag:
			why = "give a number"
		default:
			why = "give a whole number"
		}
	}
	return fmt.Sprintf("--%s %s: %s", name, value, why)
}
