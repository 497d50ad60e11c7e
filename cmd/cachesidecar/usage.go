package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
)

// counted returns an action that checks the number of arguments first. A negative most
// means no upper limit.
func counted(least, most int, act cli.ActionFunc) cli.ActionFunc {
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
	if instead := otherCommands[strings.ToLower(name)]; instead != "" && within == "" {
		see = fmt.Sprintf(": try %s. See", instead)
	} else if near := nearest(name, names); near != "" {
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

// The parser's errors, in the words of the packages flag and cli, which have no types for
// them. This is the one place that matches their texts; tests check each of them.
var (
	unknownFlag  = regexp.MustCompile(`^flag provided but not defined: -(.*)$`)
	missingValue = regexp.MustCompile(`^flag needs an argument: -(.*)$`)
	badValue     = regexp.MustCompile(`(?s)^invalid (?:boolean )?value "(.*)" for (?:flag )?-([a-z0-9-]+): `)
	badEnv       = regexp.MustCompile(`(?s)^could not parse "(.*)" as .* value ` +
		`from environment variable "([A-Z0-9_]+)" for flag ([a-z0-9-]+): `)
)

// onUsageError rewrites the parser's errors: the flag, its value and what to give
// instead.
func onUsageError(c *cli.Context, err error, isSubcommand bool) error {
	msg := err.Error()
	if m := unknownFlag.FindStringSubmatch(msg); m != nil {
		if !isSubcommand {
			return usagef("%s before a command: flags stand behind it, as in \"cachesidecar get KEY --json\"",
				dashed(m[1]))
		}
		see := ": see"
		if near := nearestFlag(m[1], flagNames(c.Command.Flags)); near != "" {
			see = fmt.Sprintf(": did you mean %s? See", dashed(near))
		}
		return usagef("%s has no flag %s%s \"%s --help\"; -- ends the flags",
			c.Command.Name, dashed(m[1]), see, c.Command.HelpName)
	}
	if m := missingValue.FindStringSubmatch(msg); m != nil {
		return usagef("--%s: give %s after it", m[1], wanted(c, m[1]))
	}
	if m := badValue.FindStringSubmatch(msg); m != nil {
		return usagef("--%s %q: give %s", m[2], unquote(m[1]), wanted(c, m[2]))
	}
	if m := badEnv.FindStringSubmatch(msg); m != nil {
		return usagef("$%s %q: give %s", m[2], unquote(m[1]), wanted(c, m[3]))
	}
	return usagef("%s", msg)
}

// unquote removes the inner quotes of a value that is quoted twice.
func unquote(s string) string {
	if u, err := strconv.Unquote(`"` + s + `"`); err == nil {
		return u
	}
	return s
}

// wanted describes the kind of value that a flag takes.
func wanted(c *cli.Context, name string) string {
	for _, f := range c.Command.Flags {
		if f.Names()[0] != name {
			continue
		}
		switch f.(type) {
		case *timeFlag:
			return "a time such as 500ms, 10s, 2h or 7d"
		case *cli.BoolFlag:
			return "true or false"
		case *cli.IntFlag, *cli.Float64Flag:
			return "a number"
		case *cli.UintFlag, *cli.Uint64Flag:
			return "a number from 0"
		}
	}
	return "a value"
}

// reorder moves a command's flags before its arguments, since cli stops looking for flags
// at the first argument. "--" ends the flags. A lone "-" and negative numbers are
// arguments. With --help the arguments are dropped.
func reorder(app *cli.App, args []string) []string {
	if len(args) == 0 {
		return args
	}
	out, rest := args[:1:1], args[1:]
	switch {
	case len(rest) > 0 && !isFlag(rest[0]) && find(app.Commands, rest[0]) == nil && !isHelp(rest[0]):
		return args // so that cli reports an unknown command
	case len(rest) > 1 && isHelp(rest[0]) && !isFlag(rest[1]):
		return append(out, topic(app.Commands, rest[1:])...)
	}
	// Go down to the command that the arguments belong to.
	flags, commands := app.Flags, app.Commands
	for len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		c := find(commands, rest[0])
		if c == nil && len(out) > 1 && len(commands) > 0 && isHelp(rest[0]) {
			return append(out, topic(commands, rest[1:])...)
		}
		if c == nil {
			break
		}
		out = append(out, rest[0])
		rest = rest[1:]
		if c.SkipFlagParsing {
			return append(out, rest...)
		}
		flags, commands = c.Flags, c.Subcommands
	}
	var words []string
	for i := 0; i < len(rest); i++ {
		a := rest[i]
		if a == "--" {
			words = append(words, rest[i+1:]...)
			break
		}
		if !isFlag(a) {
			words = append(words, a)
			continue
		}
		if isHelp(a) {
			return append(out, a) // cli would treat the arguments as topics
		}
		out = append(out, a)
		if !strings.Contains(a, "=") && takesValue(flags, strings.TrimLeft(a, "-")) {
			if i++; i == len(rest) {
				return out // "--" would be taken as the missing value
			}
			out = append(out, rest[i])
		}
	}
	if len(words) == 0 {
		return out
	}
	return append(append(out, "--"), words...)
}

// topic returns the arguments that print the help for a command, which words name. cli's
// own command help omits subcommands. A word that names no command ends the arguments, so
// that its error is reported.
func topic(commands []*cli.Command, words []string) (args []string) {
	for _, w := range words {
		if isFlag(w) || len(commands) == 0 {
			break
		}
		args = append(args, w)
		c := find(commands, w)
		if c == nil {
			return args
		}
		commands = c.Subcommands
	}
	return append(args, "--help")
}

func find(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

func isFlag(a string) bool {
	return len(a) > 1 && a[0] == '-' && (a[1] < '0' || a[1] > '9') && a[1] != '.'
}

func isHelp(a string) bool {
	name := strings.TrimLeft(a, "-")
	return name == "help" || name == "h"
}

func takesValue(flags []cli.Flag, name string) bool {
	for _, f := range flags {
		for _, n := range f.Names() {
			if n == name {
				_, isBool := f.(*cli.BoolFlag)
				return !isBool
			}
		}
	}
	return false
}
